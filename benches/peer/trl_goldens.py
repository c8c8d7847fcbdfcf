"""Golden numbers for the trainers: loss curves and losses of TRL, and an adapter of peft.

    python benches/peer/trl_goldens.py        # rewrites tests/golden/{trl.json,adapter,adapter.safetensors}; needs tests/golden/qwen2

tests/golden/trl.json
    sft    50 steps of SFTTrainer: `rows` of token ids with `completion`, where the targets begin; four rows a step in this order; the settings; `losses`, each before
           the step's update; `grad_norms` before clipping. `nll` the ordinary loss, `dft` the same rows with loss_type = "dft", `bf16` the ordinary one under autocast.
    gkd    the same rows in the same order through GKDTrainer, whose teacher is the model with every tensor times 1.3, for each beta; and, since its loss is always taken at
           temperature 1, the loss and gradient norm of `generalized_jsd_loss` at 0.7 on the first four rows.
    grpo   one batch of two groups of four attempts (`prompts`, `completions`, `advantages`), and for each loss type, with beta 0 and 0.04 (k3, with and without TRL's bias
           correction; the reference is the model with every tensor times 1.05): `loss` of GRPOTrainer._compute_loss at the first of two updates on the batch, `grad_norm` of both. The second update follows a step
           of AdamW (`learning_rate`), so its ratios differ from 1 and, without KL, some are clipped; its old log-probabilities are those before the first.
tests/golden/adapter/             rank 4 on q, v, o, gate, down; rsLoRA; as `save_pretrained` of peft writes it; the second factors are random
tests/golden/adapter.safetensors  logits (T, V) of the adapted model on `ids` (T,), and the gradient of -mean ln p of ids[8:] for each factor

f32, one thread, eager attention. Rows and completions are random ids: no text is needed, so the tokenizer is a table of 96 words.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
import trl
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer
from trl.experimental.gkd import GKDConfig, GKDTrainer

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
V, EOS = 96, 1
torch.set_num_threads(1)


def model():
    return AutoModelForCausalLM.from_pretrained(GOLDEN / "qwen2", dtype=torch.float32, attn_implementation="eager")


def tokenizer():
    table = Tokenizer(models.WordLevel({f"w{i}": i for i in range(V)}, unk_token="w0"))
    return PreTrainedTokenizerFast(tokenizer_object=table, eos_token="w1", pad_token="w2", unk_token="w0")


def ids(generator, n):
    return torch.randint(3, V, (n,), generator=generator).tolist()


class InOrder(SFTTrainer):
    def _get_train_sampler(self, *_):
        return torch.utils.data.SequentialSampler(self.train_dataset)


SFT = dict(steps=50, batch=4, learning_rate=2e-3, adam_beta1=0.9, adam_beta2=0.95, adam_epsilon=1e-8, weight_decay=0.1, max_grad_norm=1.0)


def sft_rows():
    generator = torch.Generator().manual_seed(11)
    rows = []
    for _ in range(SFT["steps"] * SFT["batch"]):
        prompt, completion = (int(torch.randint(low, high, (1,), generator=generator)) for low, high in ((4, 20), (5, 60)))
        # A pattern that can be learnt: the completion counts on from the prompt's last id.
        start = ids(generator, prompt)
        rows.append(dict(ids=start + [3 + (start[-1] + 7 * i) % (V - 3) for i in range(completion)] + [EOS], completion=prompt))
    return rows


def sft(rows, loss_type, bf16=False):
    data = Dataset.from_list([dict(input_ids=r["ids"], completion_mask=[int(i >= r["completion"]) for i in range(len(r["ids"]))]) for r in rows])
    with tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(output_dir=folder, max_steps=SFT["steps"], per_device_train_batch_size=SFT["batch"], learning_rate=SFT["learning_rate"],
                              lr_scheduler_type="constant", adam_beta1=SFT["adam_beta1"], adam_beta2=SFT["adam_beta2"], adam_epsilon=SFT["adam_epsilon"],
                              weight_decay=SFT["weight_decay"], max_grad_norm=SFT["max_grad_norm"], logging_steps=1, save_strategy="no", report_to=[],
                              completion_only_loss=True, loss_type=loss_type, max_length=None, packing=False, use_cpu=True, bf16=bf16, seed=1,
                              gradient_checkpointing=False, optim="adamw_torch", dataset_num_proc=None)
        trainer = InOrder(model=model(), args=arguments, train_dataset=data, processing_class=tokenizer())
        trainer.train()
        logged = [line for line in trainer.state.log_history if "loss" in line]
        # The log rounds; more digits would need another trainer, and 1e-3 is asked for.
        return dict(losses=[line["loss"] for line in logged], grad_norms=[float(line["grad_norm"]) for line in logged])


class GkdInOrder(GKDTrainer):
    def _get_train_sampler(self, *_):
        return torch.utils.data.SequentialSampler(self.train_dataset)


def padded(rows):
    longest = max(len(r["ids"]) for r in rows)
    pad = lambda row, value: row + [value] * (longest - len(row))
    labels = [pad([-100] * r["completion"] + r["ids"][r["completion"]:], -100) for r in rows]
    return dict(input_ids=torch.tensor([pad(r["ids"], 2) for r in rows]), attention_mask=torch.tensor([pad([1] * len(r["ids"]), 0) for r in rows]),
                labels=torch.tensor(labels))


def teacher():
    other = model()
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(GKD["teacher"])
    return other


GKD = dict(teacher=1.3, betas=[0.0, 0.3, 1.0], temperature=0.7)


def gkd(rows, beta):
    with tempfile.TemporaryDirectory() as folder:
        arguments = GKDConfig(output_dir=folder, max_steps=SFT["steps"], per_device_train_batch_size=SFT["batch"], learning_rate=SFT["learning_rate"],
                              lr_scheduler_type="constant", adam_beta1=SFT["adam_beta1"], adam_beta2=SFT["adam_beta2"], adam_epsilon=SFT["adam_epsilon"],
                              weight_decay=SFT["weight_decay"], max_grad_norm=SFT["max_grad_norm"], logging_steps=1, save_strategy="no", report_to=[],
                              use_cpu=True, bf16=False, seed=1, gradient_checkpointing=False, optim="adamw_torch", lmbda=0.0, beta=beta, max_length=None)
        trainer = GkdInOrder(model=model(), teacher_model=teacher(), args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer(),
                             data_collator=padded)
        trainer.train()
        logged = [line for line in trainer.state.log_history if "loss" in line]
    student, batch = model(), padded(rows[:SFT["batch"]])
    logits = lambda of: of(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    with torch.no_grad():
        theirs = logits(teacher())
    loss = GKDTrainer.generalized_jsd_loss(logits(student), theirs, labels=batch["labels"][:, 1:], beta=beta, temperature=GKD["temperature"])
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(student.parameters(), 1e9)
    return dict(beta=beta, losses=[line["loss"] for line in logged], grad_norms=[float(line["grad_norm"]) for line in logged], loss=float(loss), grad_norm=float(norm))


def grpo_batch():
    generator = torch.Generator().manual_seed(12)
    prompts = [ids(generator, 9)] * 4 + [ids(generator, 14)] * 4
    completions = [ids(generator, int(torch.randint(2, 30, (1,), generator=generator))) for _ in range(8)]
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.3]])
    advantages = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    return prompts, completions, advantages.flatten()


def grpo(loss_type, beta, correction):
    prompts, completions, advantages = grpo_batch()
    with tempfile.TemporaryDirectory() as folder:
        arguments = GRPOConfig(output_dir=folder, per_device_train_batch_size=8, num_generations=4, max_completion_length=40, beta=beta, loss_type=loss_type,
                               epsilon=0.2, epsilon_high=0.28, temperature=0.9, num_iterations=2, use_cpu=True, bf16=False, report_to=[],
                               gradient_checkpointing=False, importance_sampling_level="token", disable_dropout=True,
                               use_bias_correction_kl=correction)
        policy = model()
        trainer = GRPOTrainer(model=policy, reward_funcs=lambda completions, **_: [0.0] * len(completions), args=arguments,
                              train_dataset=Dataset.from_list([dict(prompt="w3")] * 8), processing_class=tokenizer())
        trainer.current_gradient_accumulation_steps = 1
        policy = trainer.model.train()
        pad = trainer.processing_class.pad_token_id
        left = lambda rows: torch.tensor([[pad] * (max(map(len, rows)) - len(r)) + r for r in rows])
        right = lambda rows: torch.tensor([r + [pad] * (max(map(len, rows)) - len(r)) for r in rows])
        ones = lambda rows, side: side([[1] * len(r) for r in rows]).where(side([[1] * len(r) for r in rows]) == 1, torch.tensor(0))
        inputs = dict(prompt_ids=left(prompts), prompt_mask=ones(prompts, left), completion_ids=right(completions), completion_mask=ones(completions, right),
                      advantages=advantages)
        inputs["num_items_in_batch"] = inputs["completion_mask"].sum()
        whole = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        attended = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)

        def logps(of):
            with torch.no_grad():
                return trainer._get_per_token_logps_and_entropies(of, whole, attended, inputs["completion_ids"].size(1))[0]

        inputs["old_per_token_logps"] = logps(policy)
        if beta:
            with torch.no_grad():
                kept = [p.clone() for p in policy.parameters()]
                for p in policy.parameters():
                    p.mul_(1.05)
                inputs["ref_per_token_logps"] = logps(policy)
                for p, k in zip(policy.parameters(), kept):
                    p.copy_(k)
        # `steps_per_generation` is what TRL divides dapo's count by: one window is the whole batch here.
        trainer.args.steps_per_generation = 1
        # So small a step with KL that no estimate passes 10, where ours is bounded (as in verl) and TRL's is not; without KL one that makes the clip bite.
        rate = 0.0002 if beta else 0.002
        optimiser = torch.optim.AdamW(policy.parameters(), lr=rate, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.0)
        losses, norms = [], []
        for _ in range(2):
            optimiser.zero_grad()
            loss = trainer._compute_loss(policy, inputs)
            loss.backward()
            losses.append(float(loss))
            norms.append(float(torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)))
            optimiser.step()
        return dict(loss_type=loss_type, beta=beta, use_bias_correction_kl=correction, learning_rate=rate, loss=losses[0], second_loss=losses[1], grad_norms=norms)


def adapter():
    torch.manual_seed(13)
    config = LoraConfig(r=4, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"], task_type="CAUSAL_LM")
    adapted = get_peft_model(model(), config)
    with torch.no_grad():
        for name, p in adapted.named_parameters():
            if "lora_B" in name:
                p.copy_(torch.randn(p.shape) * 0.2)
    shutil.rmtree(GOLDEN / "adapter", ignore_errors=True)
    adapted.save_pretrained(GOLDEN / "adapter")
    (GOLDEN / "adapter" / "README.md").unlink(missing_ok=True)
    path = GOLDEN / "adapter" / "adapter_config.json"
    settings = json.loads(path.read_text()) | dict(base_model_name_or_path="tests/golden/qwen2")
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    tokens = torch.tensor(ids(torch.Generator().manual_seed(14), 50))
    logits = adapted(tokens[None]).logits[0]
    (-logits.log_softmax(-1)[7:-1].gather(1, tokens[8:, None]).mean()).backward()
    out = dict(ids=tokens, logits=logits.detach())
    for name, p in adapted.named_parameters():
        if p.requires_grad:
            out["grad." + name.replace(".default", "")] = p.grad
    save_file({k: v.contiguous() for k, v in out.items()}, GOLDEN / "adapter.safetensors")


def main():
    adapter()
    rows = sft_rows()
    prompts, completions, advantages = grpo_batch()
    out = dict(
        versions=dict(trl=trl.__version__, transformers=transformers.__version__, torch=torch.__version__),
        sft=dict(settings=SFT, rows=rows, nll=sft(rows, "nll"), dft=sft(rows, "dft"), bf16=sft(rows, "nll", bf16=True)),
        gkd=dict(**GKD, cases=[gkd(rows, beta) for beta in GKD["betas"]]),
        grpo=dict(prompts=prompts, completions=completions, advantages=advantages.tolist(), temperature=0.9, epsilon=0.2, epsilon_high=0.28,
                  max_completion_length=40, cases=[grpo(kind, *kl) for kind in ("grpo", "bnpo", "dapo", "dr_grpo") for kl in ((0.0, False), (0.04, False), (0.04, True))]),
    )
    (GOLDEN / "trl.json").write_text(json.dumps(out) + "\n")


if __name__ == "__main__":
    main()
