"""Fields of vLLM, SGLang and llama.cpp that would change the text but are not supported by gptbox."""

from typing import Any

# fmt: off
_NEUTRAL_VALUES: dict[str, tuple[Any, ...]] = {
    # constraints on the text
    "allowed_token_ids": (), "bad_words": (), "custom_token_bans": (), "ebnf": (), "grammar": (), "guided_choice": (),
    "guided_grammar": (), "guided_json": (), "guided_regex": (), "json_schema": (), "regex": (),
    "response_format": ({"type": "text"},), "structural_tag": (), "structured_outputs": (),
    # where the text ends
    "include_stop_str_in_output": (), "max_new_tokens": (), "min_new_tokens": (0,), "n_predict": (-1,),
    "no_stop_trim": (), "repetition_detection": (), "stop_regex": (), "thinking_token_budget": (-1,),
    # sampling
    "custom_logit_processor": (), "dry_multiplier": (0,), "dynatemp_range": (0,), "early_stopping": (),
    "encoder_repetition_penalty": (1,), "epsilon_cutoff": (0,), "eta_cutoff": (0,), "guidance_scale": (1,),
    "length_penalty": (1,), "logits_processors": (), "mirostat": (0,), "negative_prompt": (),
    "no_repeat_ngram_size": (0,), "num_beams": (1,), "penalty_alpha": (0,), "repeat_penalty": (1,), "samplers": (),
    "smoothing_factor": (0,), "tfs": (1,), "tfs_z": (1,), "top_a": (0,), "top_n_sigma": (-1, 0), "typical_p": (1,),
    "use_beam_search": (), "watermarking": (), "xtc_probability": (0,),
    # prompt and weights
    "chat_template": (), "chat_template_kwargs": (), "lora": (), "lora_path": (), "prompt_embeds": (),
    "truncate_prompt_tokens": (-1,),
}
# fmt: on
"""For each field the values without effect, in addition to null, false and empty ones."""


def unsupported_warnings(body: dict[str, Any]) -> list[str]:
    """A warning that names the unsupported fields of a request; none if their values have no effect."""
    fields = [
        field
        for field, neutral in _NEUTRAL_VALUES.items()
        if (value := body.get(field)) is not None and value is not False and value not in ("", [], {}, *neutral)
    ]
    return [f"gptbox does not support these fields, and they had no effect: {', '.join(fields)}."] if fields else []
