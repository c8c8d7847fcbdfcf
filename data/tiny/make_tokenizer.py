#!/usr/bin/env python3
"""Writes the tokenizer of the embedded arithmetic recipe beside this file: tokenizer.json and tokenizer_config.json.

Every token is an added token: phrases, integers 0..99 and single characters, matched longest first and from the left. So encoding has one outcome, a
number of up to two digits is one token, and decoding what was encoded gives the text back, byte for byte, as long as it stays within the alphabet.
The model behind them is a byte-level BPE without merges, which sees only what is outside the alphabet: for models of type qwen2, transformers 5 builds
just that model, whatever tokenizer.json says, and keeps the added tokens. Needs nothing but Python.
"""
import json
from pathlib import Path

CONTROL = ["<pad>", "<bos>", "<eos>", "<unk>", "<user>", "<assistant>"]  # special: `skip_special_tokens` leaves them out
TAGS = ["<think>", "</think>", "<answer>", "</answer>"]  # part of a response, so not special
PHRASES = ["what is ", " is ", "计算", "得"]
INTEGERS = [str(n) for n in range(100)]
CHARACTERS = list("+-*/()=\n ")

# A turn of the assistant ends in <eos>; a prompt ends where its turn begins.
TEMPLATE = (
    "{%- for message in messages %}"
    "{%- if message.role == 'user' %}{{- '<user>' + message.content }}"
    "{%- elif message.role == 'assistant' %}{{- '<assistant>' + message.content + eos_token }}"
    "{%- else %}{{- raise_exception('this template has user and assistant turns only, got a turn of ' + message.role) }}"
    "{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<assistant>' }}{%- endif %}"
)


def tokenizer() -> dict:
    vocabulary = CONTROL + TAGS + PHRASES + INTEGERS + CHARACTERS
    added = [
        {"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": token in CONTROL}
        for i, token in enumerate(vocabulary)
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "model": {
            "type": "BPE",
            "vocab": {token: i for i, token in enumerate(vocabulary)},
            "merges": [],
            "unk_token": "<unk>",
            "dropout": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
        },
    }


CONFIG = {
    "tokenizer_class": "Qwen2Tokenizer",
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "clean_up_tokenization_spaces": False,
    "model_max_length": 512,
    "chat_template": TEMPLATE,
}

if __name__ == "__main__":
    here = Path(__file__).parent
    for name, content in {"tokenizer.json": tokenizer(), "tokenizer_config.json": CONFIG}.items():
        (here / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
