#!/usr/bin/env python3
"""Writes tests/golden/templates.json: what transformers renders and encodes, and tokenizers encodes, for the cases below.

    pip install transformers jinja2 && DISTILL_DATA=DATA python benches/peer/template_goldens.py

Each folder of DATA/tokenizers with a chat template, and the tiny tokenizer of this repository, goes through `apply_chat_template`. The rendered strings
are committed; the templates are not ours and are read from DATA again by the test. `dated` is tests/golden/dated.jinja, which is ours and does
what Llama 3's templates do, with the tiny tokenizer's special tokens. The clock that templates see stands still at NOW. `prompts` are texts
without a template, as a tokenizer encodes them by default: the tiny one with another post-processor, and with these entries in its
configuration (null removes one) and in special_tokens_map.json; `bos` is the first token's name as templates see it.
"""
import datetime
import json
import os
import tempfile
from pathlib import Path

import tokenizers
import transformers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ["DISTILL_DATA"]) / "tokenizers"
NOW = datetime.datetime(2025, 3, 7, 4, 5, 6, tzinfo=datetime.timezone.utc)


class StoppedClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


chat_template_utils.datetime = StoppedClock


def say(role: str, content: str) -> dict:
    return {"role": role, "content": content}


THOUGHT = "<think>\nTwo and two.\n</think>\n\nThe answer is 4."
SPECIAL = "if a<b && c>\"d\": print('é, 你好, 😀') <b>&amp;</b> {{ no }} {% template %}\n"
TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look up <this> & \"that\" für Größe\n",
        "parameters": {"type": "object", "properties": {"z": {"type": "number", "minimum": 1e-7, "maximum": 2.0}, "a": {"type": "array", "default": []}}},
    },
}
CASES = [
    ([say("user", "What is 2+2?")], True, {}),
    ([say("system", "Be brief."), say("user", "What is 2+2?")], True, {}),
    ([say("user", "What is 2+2?"), say("assistant", THOUGHT), say("user", "And 3+3?")], True, {}),
    ([say("user", "What is 2+2?"), say("assistant", THOUGHT)], False, {}),
    ([say("user", "What is 2+2?")], True, {"enable_thinking": False}),
    ([say("system", "Be brief. /no_think"), say("user", "Hi"), say("assistant", "Hello."), say("user", "What is 2+2?")], True, {"enable_thinking": True}),
    ([say("user", SPECIAL), say("assistant", SPECIAL)], False, {}),
    ([say("user", "\n  spaces and lines around \n\n"), say("assistant", "\n\n 4 \n")], True, {}),
    ([say("user", "What is 2+2?")], True, {"tools": [TOOL]}),
]
TINY_CASES = [
    ([say("user", "what is 7+4-2-8")], True, {}),
    ([say("user", "计算7+4-2-8"), say("assistant", "<think>7+4得11\n</think><answer>11</answer>")], False, {}),
]
DATED_CASES = CASES[:4] + [
    ([say("user", "What is 2+2?")], True, {"custom_tools": [TOOL]}),
    ([say("user", "What is 2+2?"), say("tool", SPECIAL)], True, {"day": "another day"}),
]
BOS = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<bos>": {"id": "<bos>", "ids": [1], "tokens": ["<bos>"]}},
}
BYTES_AND_BOS = {"type": "Sequence", "processors": [{"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}, BOS]}
ADDED = {"1": {"content": "<bos>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}}
PROMPTS = [  # post-processor, entries of tokenizer_config.json, special_tokens_map.json
    (None, {}, None),
    (None, {"add_bos_token": True}, None),
    (None, {"add_bos_token": False}, None),
    (BOS, {}, None),
    (BYTES_AND_BOS, {}, None),
    (BYTES_AND_BOS, {"add_bos_token": False}, None),
    (None, {"bos_token": None}, None),
    (None, {"bos_token": None}, {"bos_token": {"content": "<bos>", "lstrip": False, "normalized": False, "rstrip": False}}),
    (None, {}, {"bos_token": "<user>"}),
    (None, {"added_tokens_decoder": ADDED}, {"bos_token": "<user>"}),
]
TEXTS = [
    "",
    "Hello world",
    "What is 12345 + 678,901?",
    "  leading, trailing  \n\n\n",
    "<|im_start|>user\nHi<|im_end|>\n<|endoftext|>",
    "tabs\tand\r\nlines",
    "你好，世界。计算一下",
    "naïve café e\u0301 \u212b",
    "😀👩‍👩‍👧 🇩🇪",
    "\\boxed{\\frac{1}{2}} $x^2$",
    "def f(x):\n    return x  # it's we'll don't",
    "<think>\nhm\n</think>",
    "a\u0000b\u200bc",
    "العربية עברית हिन्दी",
    "x" * 200,
]
TINY_TEXTS = [
    "",
    "7+4 is 11\n",
    "<user>what is 7+4-2-8<assistant>",
    "<think>7+4 is 11\n11-2 is 9\n9-8 is 1\n</think><answer>1</answer><eos>",
    "7+4得11\n计算",
    "123 007 100 -5 10/2=(5)",
    "what is",
    "is  is it",
]
# Whole characters, characters cut in the middle, and an id that no token has.
BYTES = [[165, 108, 119], [165, 108], [9707, 145233, 378], [9707, 151700, 1879]]


def special_tokens(config: dict) -> dict:
    """The special tokens of a tokenizer_config.json as plain strings."""
    content = {key: token["content"] if isinstance(token, dict) else token for key, token in config.items() if key.endswith("_token")}
    return {key: token for key, token in content.items() if isinstance(token, str)}


def rendered(name: str, tokenizer, cases) -> list:
    rows = []
    for messages, generate, extra in cases:
        if "tools" in extra and "tojson" not in tokenizer.chat_template:
            continue
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=generate, tokenize=False, **extra)
        rows.append({"tokenizer": name, "messages": messages, "add_generation_prompt": generate, "extra": extra, "rendered": text})
    return rows


def encoded(name: str, tokenizer, texts) -> list:
    rows = [(text, tokenizer.encode(text, add_special_tokens=False).ids) for text in texts]
    return [{"tokenizer": name, "text": text, "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False)} for text, ids in rows]


def prompts() -> list:
    tiny = ROOT / "data" / "tiny"
    rows = []
    for processor, entries, special in PROMPTS:
        tokenizer = json.loads((tiny / "tokenizer.json").read_text(encoding="utf-8")) | {"post_processor": processor}
        # The general class: it takes tokenizer.json as it is.
        config = json.loads((tiny / "tokenizer_config.json").read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"} | entries
        config = {key: value for key, value in config.items() if value is not None}
        with tempfile.TemporaryDirectory() as folder:
            for name, content in [("tokenizer.json", tokenizer), ("tokenizer_config.json", config), ("special_tokens_map.json", special)]:
                if content is not None:
                    (Path(folder) / name).write_text(json.dumps(content), encoding="utf-8")
            loaded = AutoTokenizer.from_pretrained(folder)
        row = {"post_processor": processor, "config": entries, "special_tokens_map": special, "bos": loaded.bos_token}
        rows.append(row | {"text": "what is 7+4", "ids": loaded("what is 7+4").input_ids})
    return rows


def template_of(folder: Path) -> tuple[str | None, dict]:
    config_file, jinja = folder / "tokenizer_config.json", folder / "chat_template.jinja"
    config = json.loads(config_file.read_text(encoding="utf-8")) if config_file.exists() else {}
    return (jinja.read_text(encoding="utf-8") if jinja.exists() else config.get("chat_template")), special_tokens(config)


def main() -> None:
    cases = []
    for folder in sorted(DATA.iterdir()):
        template, tokens = template_of(folder)
        if template:
            # Rendering needs no vocabulary, and most of these folders have none.
            stand_in = tokenizers.Tokenizer(tokenizers.models.WordLevel({"x": 0}, unk_token="x"))
            cases += rendered(folder.name, PreTrainedTokenizerFast(tokenizer_object=stand_in, chat_template=template, **tokens), CASES)
    tiny = PreTrainedTokenizerFast.from_pretrained(ROOT / "data" / "tiny")
    cases += rendered("tiny", tiny, TINY_CASES)
    stand_in = tokenizers.Tokenizer(tokenizers.models.WordLevel({"x": 0}, unk_token="x"))
    dated = (ROOT / "tests" / "golden" / "dated.jinja").read_text(encoding="utf-8")
    special = special_tokens(json.loads((ROOT / "data" / "tiny" / "tokenizer_config.json").read_text(encoding="utf-8")))
    cases += rendered("dated", PreTrainedTokenizerFast(tokenizer_object=stand_in, chat_template=dated, **special), DATED_CASES)
    qwen = tokenizers.Tokenizer.from_file(str(DATA / "qwen2.5" / "tokenizer.json"))
    golden = {
        "source": f"transformers {transformers.__version__}, tokenizers {tokenizers.__version__}, benches/peer/template_goldens.py",
        "unix_seconds": int(NOW.timestamp()),
        "cases": cases,
        "encodings": encoded("qwen2.5", qwen, TEXTS) + encoded("tiny", tiny.backend_tokenizer, TINY_TEXTS),
        "decodings": [{"tokenizer": "qwen2.5", "ids": ids, "decoded": qwen.decode(ids, skip_special_tokens=False)} for ids in BYTES],
        "prompts": prompts(),
    }
    out = ROOT / "tests" / "golden" / "templates.json"
    out.write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"{len(cases)} rendered, {len(golden['encodings'])} encoded -> {out}")


if __name__ == "__main__":
    main()
