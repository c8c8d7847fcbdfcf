"""Checks that a model folder loads unchanged in transformers and prints what it computes, as one line of JSON.

    python benches/peer/loads.py FOLDER [--prompt TEXT | --ids 1,2,3]

Exit status 0 if nothing was missing, unexpected or of the wrong shape, else 1. Fields: parameters; missing, unexpected, mismatched
(names); prompt, ids, tokens (the pieces), decoded (ids back to text); chat (a one-turn conversation rendered with the folder's
template, null without one); eos (of the generation settings), logits: the last position's, over the whole vocabulary.
A folder without a tokenizer needs --ids.
"""

import argparse
import json
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging


def text_fields(folder, prompt):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    turn = [{"role": "user", "content": prompt}]
    chat = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True) if tokenizer.chat_template else None
    return dict(prompt=prompt, ids=ids, tokens=tokenizer.convert_ids_to_tokens(ids), decoded=tokenizer.decode(ids), chat=chat,
                tokenizer_vocabulary=len(tokenizer))


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder")
    arguments.add_argument("--prompt", default="<user>what is 7+4-2-8<assistant>")
    arguments.add_argument("--ids", help="token ids instead of a text; the tokenizer is then not read")
    options = arguments.parse_args()
    logging.disable_progress_bar()
    logging.set_verbosity_error()

    model, info = AutoModelForCausalLM.from_pretrained(options.folder, dtype=torch.float32, output_loading_info=True)
    problems = {key: sorted(map(str, info[f"{key}_keys"])) for key in ("missing", "unexpected", "mismatched")}
    text = dict(ids=[int(i) for i in options.ids.split(",")]) if options.ids else text_fields(options.folder, options.prompt)
    with torch.inference_mode():
        logits = model(torch.tensor([text["ids"]])).logits[0, -1]
    report = dict(architecture=type(model).__name__, parameters=sum(p.numel() for p in model.parameters()), **problems, **text)
    print(json.dumps(report | dict(eos=model.generation_config.eos_token_id, logits=logits.tolist()), ensure_ascii=False))
    return 1 if any(problems.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
