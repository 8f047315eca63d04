"""The texts of `tokenizer/cases.json`: all 18 languages, and the inputs that tokenizers get wrong."""

import json
import unicodedata
from pathlib import Path

#: The languages of AltDiffusion-m18.
LANGUAGES = ("en", "zh", "ja", "th", "ko", "hi", "uk", "ar", "tr", "vi", "pl", "nl", "pt", "it", "es", "de", "fr", "ru")

PROMPTS = (
    "a picture of a small dog wearing a red hat, oil painting",
    "Woman's portrait, 8k, trending on ArtStation!!! (masterpiece:1.2), [blurry]",
    "一只戴帽子的小狗",
    "黑色钢笔画的城市夜景，霓虹灯，4K高清。",
    "夕焼けの海辺を歩く猫の絵",
    "ภาพวาดแมวสองตัวนั่งอยู่ใต้ต้นไม้",
    "달빛 아래에서 춤추는 고양이 두 마리",
    "चाँदनी रात में नाचती हुई दो बिल्लियाँ, क्षत्रिय",
    "Дві кішки п'ють чай біля ґанку під їжаком",
    "قطة صغيرة تجلس فوق السجادة الحمراء، لوحة زيتية",
    "Işıklı şehirde koşan kırmızı balıklar, İstanbul",
    "Bức tranh sơn dầu vẽ con mèo đang ngủ dưới ánh trăng",
    "Zażółć gęślą jaźń: mały pies w czerwonym kapeluszu",
    "een schilderij van een hondje dat een hoed draagt",
    "um cão com chapéu vermelho à beira-mar, ilustração",
    "un gatto nero sull'albero di Natale, perché no?",
    "¿Dónde está el niño con el paraguas? ¡Aquí!",
    "Größere Straßenbahn fährt über die Brücke, Übergröße",
    "une œuvre d'art représentant l'été à la plage, déjà vu",
    "Кошка в шляпе пьёт чай; акварель, высокое качество",
)

ODD = (
    # empty, white space of every sort, alone and around words
    "", " ", "     ", "\t", "\n", "\r\n", "\u3000", "\u00a0", "\u2003\u2009\u200a", "\u2028", "\u2029", "\u0085", "\u202f", "\u205f", "\u1680", "\u180e",
    " dog", "dog ", "  dog  ", "red  dog", "red     dog", "red\tdog", "red\ndog", "red\r\ndog\r\n", "\n\nred dog\n\n",
    "red\u00a0dog", "red\u3000dog", "\u3000一只\u3000猫\u3000", "red\u2003dog", "red \u00a0\u3000\t dog", "red\u2028dog", "red\u0085dog", "red\vdog", "red\fdog",
    # zero width, direction marks, soft hyphen, byte order mark
    "red\u200bdog", "\u200bdog", "dog\u200b", "\u200b", "red\u200cdog", "red\u200ddog", "\ufeffdog", "dog\ufeff", "re\u00add", "red\u2060dog", "\u200ered\u200f dog", "\u202ared\u202c", "\u2066قطة\u2069 cat",
    # control characters
    "red\x00dog", "\x00", "\x01\x02\x03", "red\x07dog", "red\x1b[31mdog\x1b[0m", "a\x7fb", "a\x80b\x9fc", "\x10\x1f",
    # U+FFFD, private use, unassigned, non-characters, high planes
    "\ufffd", "red \ufffd dog", "\ufffd\ufffd", "\ue000 cat", "\uf8ff", "\U000f0000", "\ufdd0", "\uffff", "\U0010ffff", "\U0003fffe x",
    # full-width, half-width katakana, compatibility forms
    "ＲＥＤ　ＤＯＧ！？（１２３）", "ﾈｺﾉｴ", "ｶﾞｷﾞｸﾞﾊﾟﾋﾟ", "ｶﾞ ﾊﾟ", "ﾊﾝｶｸ｡｢ﾃｽﾄ｣､", "１０００円", "￥￡￠", "ﾡﾢﾣ",
    "ﬁnd ﬂower oﬃce ﬆone ﬅ", "Ǆ ǈ ǋ ĳ", "①②③ ⑩ ⑳ Ⓐ ⓩ ⑴ ⒈", "Ⅷ ⅻ ½ ¾ ⅓", "x² y³ H₂O ⁿ", "㎏ ㎡ ㏂ ㍿ ㌔ ㋿", "㈱ ㊙ ㊗ 🈚", "™ ℠ № ℡ ℃ Å Ω", "ª º ¹", "… ‥ ⁇ ‽", "‘a’ “b” „c‟ «d» ‹e›", "– — ― ‐ ‑ − ﹣ －", "~ ～ 〜 ˜", "` ´ ˋ ˊ ¨", "𝓡𝓮𝓭 𝕕𝕠𝕘 𝟙𝟚𝟛 𝐁𝐨𝐥𝐝", "ᴿᵉᵈ ₐₑ",
    "豈 更 車 賈 﨑", "⼀⼆⽝⾺ ⺟", "〱〲 〆 々 〇", "ヿ ゟ ㇰ ゔ", "丽𠀀𠮷野家", "龘靐齉爩", "㐀㐁𪚥",
    # combining marks, in both normal forms, doubled, dangling, reordered
    "é e\u0301 E\u0301", "ñ n\u0303", "Å A\u030a \u212b", "e\u0301\u0301\u0301", "\u0301", "\u0301dog", "a\u0323\u0307 a\u0307\u0323", "q\u0307\u0323", "Z\u0351\u036b\u0343a\u0346\u0310l\u034bg\u0300o\u0489", "が か\u3099 ぱ は\u309a", "カ\u309bハ\u309c", "\u1e9b\u0323", "ộ o\u0302\u0323 o\u0323\u0302", "й и\u0306 ё е\u0308", "ґ ї і\u0308", "I i İ ı I\u0307", "ẞ ß SS ſ",
    # Korean: syllables, conjoining jamo, compatibility jamo, half-width
    "한글 고양이", "\u1112\u1161\u11ab\u1100\u1173\u11af", "ㅋㅋㅋ ㅠㅠ ㅎㅏㄴ", "\u1100\u1161\u1100", "ￂￃￄ", "뷁 쀍 힣", "한\u11ab", "\u115f\u1160 ㅤ",
    # Arabic: presentation forms, ligatures, tatweel, harakat, digits
    "ﻗﻄﺔ ﺻﻐﻴﺮﺓ", "ﷲ ﷺ ﷽ ﻻ ﻼ", "قـــطـــة", "قِطَّةٌ صَغِيرَةٌ", "١٢٣ ۴۵۶", "ی ي ك ک ة ه", "أ إ آ ٱ أ",
    # Devanagari: conjuncts, nukta in both forms, joiners; Thai: vowels in order and out of order
    "क्षत्रिय ज्ञान श्री", "क़ क\u093c ड़ ड\u093c", "क्\u200dष क्\u200cष", "\u093f", "१२३ ।॥", "น้ำ นํา ก็ เก๋", "ํา ้ ำ", "๑๒๓ ๆ ฯลฯ", "แแ เเ",
    # scripts that the model was not trained on
    "ꦲꦏ꧀ꦱꦫ", "ᚠᚢᚦᚨᚱᚲ", "𐍈𐌿𐍂", "𓀀𓁐", "ᠮᠣᠩᠭᠣᠯ", "བོད་ཡིག", "ქართული კატა", "Հայերեն կատու", "ελληνικά γάτα Σς", "עברית חתול שָׁלוֹם", "தமிழ் பூனை", "ភាសាខ្មែរ", "አማርኛ", "ᏣᎳᎩ", "𝄞♯♭", "☭☯☮", "あｱア亜",
    # emoji: joined, toned, flags, keycaps, variation selectors, broken sequences
    "😀", "a 🐶 with a 🎩", "👩🏽‍🚀", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🏴‍☠️", "🇨🇳🇺🇸🇩🇪", "🇨", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "👍🏿👍🏻", "🏽", "❤️ ❤ ❤︎", "1️⃣ #️⃣ *️⃣", "☀️☁️☂️", "\u200d🚀\u200d", "\ufe0f", "🫠🫨🪿", "一只🐱和🐶", "🍎🍎🍎🍎🍎🍎🍎🍎",
    # mixed scripts, case, numbers, punctuation, markup
    "一只cat和two只dog在Москва", "iPhone15手机壳のデザインをкупить", "CamelCaseWord snake_case-word kebab", "HELLO hello HeLLo", "3.14159 1,000,000 1e-5 0xFF 100% $5 #tag @you", "!!!???...,,,;;;:::", "((nested [brackets] {here}))", "https://example.org/a?b=c&d=e#f", "a/b\\c|d", "<div class=\"x\">text</div> &amp; &lt;", "print('hi')\n\tif x == 1: pass", "\"quoted\" 'single'", "don't can't l'été", "e-mail: a.b@example.com", "C++ C# .NET", "^_^ :-) ¯\\_(ツ)_/¯", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "-", ".", "?", "\\", "\\n", "%s%d{}",
    # special tokens typed by the user
    "<s>", "</s>", "<pad>", "<unk>", "<mask>", "a <mask> b", "a<mask>b", " <mask> x", "x  <mask>  y", "<mask><mask>", "<mask> <mask>", "一只<mask>猫", "a <s> b", "a</s>b", "a <pad> b", "a <unk> b", "<s>a</s>", "<S> </S> <MASK>", "< s >", "<s", "<s>\u3000x", "<mask>\n", "\u3000<mask>x", "<unk>x<pad>\ty", "NOTUSED <s>NOTUSED", "</s> ", " <s> ", "\t<mask>", "＜s＞", "＜mask＞",
    # the metaspace and other pieces, typed
    "▁", "▁▁", "▁dog", "a▁b", "a ▁ b", "▁ ▁", "dog▁", "<0x41>", "##ing", "Ġdog", "</w>",
    # lengths around the limits
    "dog " * 74, "dog " * 75, "dog " * 76, "dog " * 100, "猫" * 80, "cat and dog, " * 130, "z" * 300, "supercalifragilisticexpialidocious" * 8, "ก" * 120, "👍" * 90, "a" * 77 + " " + "b" * 77, " ".join("abcdefghij") * 30, "<mask>" * 80, "é" * 100 + "e\u0301" * 50,
)


def cases(cldr: Path) -> list[str]:
    """Every text once, in a fixed order."""
    texts = list(PROMPTS) + list(ODD)
    for form in ("NFD", "NFKC", "NFKD"):
        texts.extend(unicodedata.normalize(form, prompt) for prompt in PROMPTS)
    texts.extend(prompt.upper() for prompt in PROMPTS)
    # Names by native speakers: a few of every language, alone and joined across languages.
    for shift, language in enumerate(LANGUAGES):
        path = cldr / "annotations" / language / "annotations.json"
        entries = json.loads(path.read_text(encoding="utf-8"))["annotations"]["annotations"]
        names = [entry["tts"][0] for _, entry in sorted(entries.items()) if entry.get("tts")]
        texts.extend(names[shift * 7 + 40 :: len(names) // 4])
        texts.append(", ".join(names[shift * 11 + 200 : shift * 11 + 206]))
    return list(dict.fromkeys(texts))
