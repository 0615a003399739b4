r"""Documents that no route may take: what a JSON parser must refuse, what it may refuse, and what is no such object.

Made after the classes of JSON test suites: structure, numbers, texts, escapes, literals, blanks, encodings, size.
Blanks part the documents in the raw texts here, and ~ stands for a blank in one.
"""


def _parted(texts: str) -> list[str]:
    return [text.replace("~", " ") for text in texts.split()]


_TEXTS = [
    *_parted(r"""
" "a a" a 'a' "\" "\x00" "\u" "\u0" "\u00g0" "\uD8" "\a" "\é" "a"b" "a""b" "\u{1f600}" "\U0001f600" "\ “a” `a` "a'
"""),
    '"\n"',
    '"\t"',
    '"\r"',
    '"\x00"',
    '"\x1f"',
    '"a\nb"',
]
_NUMBERS = [
    *_parted(r"""
01 -01 +1 --1 1. .5 -.5 1e 1e+ 1E- 1.e1 1..2 1.2.3 0x1f 0b1 0o7 1_000 - + -~1 1~2 NaN -NaN Infinity -Infinity +Infinity
nan inf 1e1.5 1f 1L １ ٣ ½ ∞ 1é 0e 00 -0x1 1-1 1+1 0.1. 1,5
"""),
    "1" * 5000,
]
_LITERALS = _parted(r"""
tru True TRUE truee fals False nul None NULL nil undefined yes null1 true~false nullnull t n function(){} Date() <null>
$ # @ \ ? = ; : &quot;
""")
_VALUES = [*_TEXTS, *_NUMBERS, *_LITERALS]
_STRUCTURES = [
    *_parted(r"""
{ } [ ] {] [} {{}} {}{} {}, ,{} {,} {}} [[] []] [,] [1,] [,1] [1~2] [1,,2] [1:2] [1 ["a [[[ {[ {"a" {"a": {"a":1 {"a":1,
{"a"~1} {"a",1} {"a"::1} {"a":1~"b":2} {"a":1,,"b":2} {,"a":1} {"a":1,} {a:1} {'a':1} {1:1} {null:1} {[]:1} {{}:1}
{"a":} {:1} {"a":1}x x{"a":1} {"a":1}# {"a":1}//c {"a":/**/1} /**/{"a":1} {"a":1}/* {"a":1}; ({"a":1}) {"a":(1)}
{"a":<1>} <a/> a=1 (1) * {"a":1}{"b":2} {"a":1}~{"b":2} {"a"=1} {"a"=>1} {\"a\":1} "{}" {"a":1] ["a":1} {"a":[1}
{"a":{"b":1]} {"a":[{]} [{] [{} {[]} {"a":1,"b"} {"a","b"} {"a":1~,~} {~"a"~:~1~ {"a":"b} {"a:"b"} {'a':"b"} {"a":`b`}
"""),
    '#!\n{"a":1}',
    '{"a":1}\x00',
    '\x00{"a":1}',
    '{"a":1}\n{"b":2}',
    "---\na: 1",
]
_BLANKS = [blank + "{}" for blank in "\u00a0\u2028\ufeff\f\v\x85\b\u3000"] + ["{\u00a0}", "{}\x1a", "{\f}"]
_NO_OBJECTS = _parted('[] [1] ["a"] 1 -0 1.5e3 "a" "" true false null [[]] [{}] ~7~ [{"image":1}]')
_NO_FIELDS = [*_parted('{} ~{}~ {"":1} {"a":1} {"Image":"x"} {"image~":"x"} {"a":{"image":"x"}}'), "\r\n\t{}\n"]
_WRONG_IMAGES = _parted(r'null 1 true [] {} "" "\u0000" "\ud800" "\udc00x"')
_OBJECTS = [f'{{"image":{value}}}' for value in [*_VALUES, *_WRONG_IMAGES]]
_ESCAPED_BYTES = rb"""
\xff \xfe\xff \xff\xfe{\0}\0 \0{\0} \xef\xbb\xbf{} {"a":"\xff"} {"\xe9":1} \xc3\x28 ["\xed\xa0\x80"] {"a":"\xc0\x80"}
{"a":"\xf4\x90\x80\x80"} \x1f\x8b\x08\0 \0 \n
"""
_BYTES = [text.decode("unicode_escape").encode("latin-1") for text in _ESCAPED_BYTES.split()]
_LARGE = [b"\0" * 1000, b" " * 9999, b"[" * 100_000, b'{"a":' * 100_000, b"[" * 60_000 + b"]" * 60_000, b'{"a":[' * 900]

ODD_JSON = [
    *(text.encode() for part in (_VALUES, _STRUCTURES, _BLANKS, _NO_OBJECTS, _NO_FIELDS, _OBJECTS) for text in part),
    *_BYTES,
    *_LARGE,
]
