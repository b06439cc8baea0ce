"""Texts of all scripts, for tests of byte-level BPE."""

from hypothesis import strategies as st

SENTENCES = {
    "English": "All human beings are born free and equal in dignity and rights; it's what they're told, don't they?\n",
    "German": "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich – 1.234,50 € für Äpfel.\n",
    "Russian": "Съешь же ещё этих мягких французских булок, да выпей чаю.\n",
    "Greek": "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία· ὁ βίος βραχύς.\n",
    "Arabic": "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق، وقد وُهبوا عقلًا وضميرًا.\n",
    "Persian": "می‌خواهم به خانه‌ام بروم؛ کتاب‌ها کجاست؟\n",
    "Hebrew": "כָּל בְּנֵי הָאָדָם נוֹלְדוּ בְּנֵי חוֹרִין וְשָׁוִים בְּעֶרְכָּם.\n",
    "Hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। क्ष\u200dत्र\n",
    "Thai": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ\n",
    "Chinese": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。\n",
    "Japanese": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。\n",
    "Korean": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.\n",
    "emoji": "👩\u200d👩\u200d👧\u200d👦 ❤\ufe0f 1\ufe0f\u20e3 👍🏽 🇩🇪 naïve e\u0301 cafe\u0301\n",
    "code": "def f(x):\n    return x[1:] + '\\t'  # 0x1F600, 3.14159\r\n\tif x != None: pass\n",
}
"""A sentence per script."""

_pieces = st.sampled_from(
    [
        "<|endoftext|>", "<|endoftext", "|>", " ", "  ", "\n", "\n\n", " \n ", "\t", "\r\n", "\x0b", "\x85", "\xa0",
        "\u2028", "\u3000", "\x1c", "\x00", "'", "'s", "'S", "’t", "'ll", "don't", "12345", " 42", "½", "²", "Ⅷ", "٣",
        "\u0301", " \u0301", "\u200d", "\ufe0f", "\u200c", "_", "a", "A", "-", "--", ".", ",", "。", "\ufeff", "\ufffd",
        "\U0010ffff", "\ue000",
    ]
)  # fmt: skip
_words = st.sampled_from([word for sentence in SENTENCES.values() for word in sentence.split(" ")])
_characters = st.sampled_from([*dict.fromkeys("".join(SENTENCES.values()))])

texts = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=40),
    st.text(_characters, max_size=60),
    st.lists(_words | _pieces | st.text(_characters | st.characters(codec="utf-8"), max_size=4), max_size=20).map(
        "".join
    ),
    st.lists(_words, max_size=12).map(" ".join),
)
"""Texts of all scripts, without surrogates."""

LONG = {
    "spaces": " " * 100_000,
    "spaces before a word": " " * 100_000 + "x",
    "line breaks": "\n" * 100_000 + "x",
    "one letter": "a" * 100_000,
    "Chinese without spaces": "人人生而自由在尊严和权利上一律平等" * 6_000,
    "punctuation": "!?" * 50_000,
    "digits": "0123456789" * 10_000,
    "marks": "e" + "\u0301" * 100_000,
}
"""Texts with long runs of one kind."""


def sample(repetitions: int = 20) -> str:
    """A text in all scripts, to train tokenizers on."""
    return "".join(SENTENCES.values()) * repetitions
