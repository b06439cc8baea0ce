# ruff: noqa: E501, RUF001
"""Encodings of real sentences are recognised, and what cannot be told is not."""

import pytest

from gptbox.datasets.encoding import MIN_CONFIDENCE, SAMPLE_BYTES, by_mark, guess, is_mostly_utf8

# The first article of the Universal Declaration of Human Rights.
ARTICLE = {
    "German": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt "
    "und sollen einander im Geist der Brüderlichkeit begegnen. Das gilt für Männer, für Frauen, für Große und für Öffentliches.",
    "French": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de "
    "conscience et doivent agir les uns envers les autres dans un esprit de fraternité. Ça va, là-bas, où l’été a été gâché ?",
    "Spanish": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y "
    "conciencia, deben comportarse fraternalmente los unos con los otros. ¿Mañana? ¡Qué país! Así será el año más próximo.",
    "Polish": "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Są oni obdarzeni rozumem i "
    "sumieniem i powinni postępować wobec innych w duchu braterstwa. Żółć, źdźbło, śnieg.",
    "Czech": "Všichni lidé rodí se svobodní a sobě rovní co do důstojnosti a práv. Jsou nadáni rozumem a svědomím a mají "
    "spolu jednat v duchu bratrství.",
    "Hungarian": "Minden emberi lény szabadon születik és egyenlő méltósága és joga van. Az emberek, ésszel és "
    "lelkiismerettel bírván, egymással szemben testvéri szellemben kell hogy viseltessenek. Főútjuk, tűzük.",
    "Turkish": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana sahiptirler ve "
    "birbirlerine karşı kardeşlik zihniyeti ile hareket etmelidirler.",
    "Russian": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью.",
    "Greek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "Hebrew": "כל בני אדם נולדו בני חורין ושווים בערכם ובזכויותיהם. כולם חוננו בתבונה ובמצפון, לפיכך חובה עליהם לנהוג איש "
    "ברעהו ברוח של אחוה. כל אדם זכאי לזכויות ולחרויות שנקבעו בהכרזה זו ללא הפליה כלשהיא מטעמי גזע, צבע, מין, לשון, דח, דעה "
    "פוליטית או דעה בבעיות אחרות, בגלל מוצא לאומי או חברתי, קנין, לידה או מעמד אחר. לא יהיה אדם עבד או משועבד; עבדות וסחר "
    "עבדים יאסרו לכל צורותיהם. לא יהיה אדם נתון לעינויים, ולא ליחס או לעונש אכזריים, בלתי אנושיים או משפילים.",
    "Arabic": "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق. وقد وهبوا عقلا وضميرا.",
    "Thai": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "Chinese": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
    "Japanese": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "Korean": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "English": "“We don’t know”, he said — and it’s true. “They didn’t tell us… what they’d do.”",
}  # fmt: skip


@pytest.mark.parametrize(
    ("language", "codec"),
    [
        ("German", "cp1252"), ("German", "mac_roman"), ("German", "cp850"), ("French", "cp1252"), ("Spanish", "cp1252"),
        ("Polish", "cp1250"), ("Polish", "iso8859_2"), ("Czech", "cp1250"), ("Czech", "iso8859_2"),
        ("Hungarian", "cp1250"), ("Turkish", "cp1254"), ("Russian", "cp1251"), ("Russian", "koi8_r"),
        ("Russian", "cp866"), ("Russian", "iso8859_5"), ("Greek", "cp1253"), ("Greek", "iso8859_7"),
        ("Arabic", "cp1256"), ("Thai", "cp874"), ("Chinese", "gb18030"), ("Chinese", "gb2312"),
        ("Japanese", "cp932"), ("Japanese", "euc_jp"), ("Korean", "euc_kr"), ("English", "cp1252"),
    ],
)  # fmt: skip
def test_the_encoding_of_a_sentence_is_recognised(language: str, codec: str) -> None:
    text = ARTICLE[language] * 3
    sample = text.encode(codec)
    assert not is_mostly_utf8(sample)
    found = guess(sample)
    assert found is not None
    assert sample.decode(found.codec) == text
    assert MIN_CONFIDENCE <= found.confidence < 1


@pytest.mark.parametrize(
    "sample",
    [
        b"caf\xe9 au lait",  # one character tells little
        b"\xff" * 100,
        bytes(range(128, 256)) * 4,
        b"\x00\x01\x80\xfe" * 50,
        ARTICLE["Hebrew"][:80].encode("cp1255"),  # as probable in cp1251
        "Größe\n".encode("cp037") * 9,  # EBCDIC, which differs from ASCII
    ],
)
def test_what_cannot_be_told_has_little_confidence(sample: bytes) -> None:
    found = guess(sample)
    assert found is None or found.confidence < MIN_CONFIDENCE


@pytest.mark.parametrize("language", list(ARTICLE))
def test_utf8_is_utf8_also_if_cut_or_damaged(language: str) -> None:
    sample = ARTICLE[language].encode()
    assert all(is_mostly_utf8(sample[:size]) for size in range(len(sample)))
    first = next(i for i, byte in enumerate(sample) if byte >= 0x80)
    assert is_mostly_utf8(sample[:first] + b"\xff" + sample[first:])


def test_a_long_sample_is_as_good() -> None:
    for separator in ("\n", " "):
        for language, codec in (("Japanese", "cp932"), ("Chinese", "gb18030"), ("Czech", "iso8859_2")):
            sample = (("plain ASCII text\n" * 50) + (ARTICLE[language] + separator) * 9000).encode(codec)[:SAMPLE_BYTES]
            found = guess(sample)
            assert found is not None
            assert found.codec == codec


@pytest.mark.parametrize("shift", range(4))
def test_a_sample_that_ends_within_a_character_is_as_good(shift: int) -> None:
    for codec in ("gb18030", "cp932"):
        line = {"gb18030": ARTICLE["Chinese"], "cp932": ARTICLE["Japanese"]}[codec]
        begin, end = (f"{line}\n" * 3).encode(codec), (line * 20).encode(codec)
        sample = begin + b"x" * (SAMPLE_BYTES - len(begin) - 500 + shift) + end
        found = guess(sample[:SAMPLE_BYTES])
        assert found is not None
        assert (found.codec, found.confidence > MIN_CONFIDENCE) == (codec, True)


def test_byte_order_marks() -> None:
    for codec, name in (("utf-8-sig", "UTF-8"), ("utf-16", "UTF-16"), ("utf-32", "UTF-32")):
        marked = by_mark("a".encode(codec))
        assert marked is not None
        encoding, size = marked
        assert (encoding.name, encoding.confidence) == (name, 1)
        assert "a".encode(codec)[size:].decode(encoding.codec) == "a"
    assert by_mark(b"a") is None
    assert by_mark(b"") is None
