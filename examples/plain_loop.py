"""Classification of Fudan news in seven steps on plain Hugging Face and PEFT. Nothing of Weitiao is imported.

    python plain_loop.py [model=./folder] [max_steps=5] [learning_rate=2e-4] …

It reads train.jsonl and test.jsonl, rows of {"text": …, "category": [options], "output": …}, and writes the adapter to
output/plain-loop/checkpoint-N. For the same rows and settings its loss is that of `weitiao.train`: it is what all
that machinery computes, written down once more without it.
"""

import json
import random
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, get_scheduler

INSTRUCTION = "判断文本属于哪一个类别，只输出类别名称。"
END = "<|im_end|>"
"""What Qwen2 ends its turns with. A model that is trained on another token does not learn when to stop."""
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass
class Settings:
    model: str = "Qwen/Qwen2-1.5B-Instruct"  # or a folder
    train: str = "train.jsonl"
    test: str = "test.jsonl"
    output: str = "output/plain-loop"
    max_length: int = 384  # tokens of the text alone
    epochs: int = 2
    max_steps: int = 0  # 0: as many as the epochs have
    batch: int = 4
    accumulation: int = 4
    learning_rate: float = 1e-4
    save_steps: int = 100
    seed: int = 42
    shown: int = 10  # test rows that are answered at the end


def load_model(name):
    """Step 1. Without trust_remote_code: Qwen2 needs no code of its own."""
    if not Path(name).is_dir():
        from modelscope import snapshot_download

        name = snapshot_download(name)
    gpu = torch.cuda.is_available()
    model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.bfloat16 if gpu else torch.float32)
    return model.to("cuda" if gpu else "cpu"), AutoTokenizer.from_pretrained(name)


def dataset_jsonl_transfer(origin_path, new_path):
    """Step 2. Rows of the data set as {"instruction", "input", "output"}, written to `new_path` and returned."""
    rows = []
    with open(origin_path, encoding="utf-8") as file:
        for row in map(json.loads, file):
            # The options stand before the text: what is shortened later is the text, never them.
            question = f"候选类别：{'、'.join(dict.fromkeys(row['category']))}\n文本：{row['text']}"
            rows.append({"instruction": INSTRUCTION, "input": question, "output": row["output"]})
    Path(new_path).parent.mkdir(parents=True, exist_ok=True)
    Path(new_path).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return rows


def process_func(row, tokenizer, max_length):
    """Step 3. Token ids of the prompt by the model's own chat template, then the answer and END.

    Only these are labels; the labels of the prompt are -100. Prediction uses the same prompt.
    """
    options, text = row["input"].split("\n文本：", 1)
    question = f"{options}\n文本：{shortened(text, tokenizer, max_length)}"
    messages = [{"role": "system", "content": row["instruction"]}, {"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    answer = [*tokenizer.encode(row["output"], add_special_tokens=False), tokenizer.convert_tokens_to_ids(END)]
    return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}


def shortened(text, tokenizer, max_length):
    """Head and tail of a text of more than `max_length` tokens. An example that is cut from the right loses its answer,
    and a mean over no answer tokens is NaN."""
    places = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    keep, over = len(places), len(places) - max_length
    short = text
    while over > 0:
        # The mark costs a token or two, and tokens merge differently beside it.
        keep -= over
        short = text[: places[keep - keep // 2 - 1][1]] + "…" + text[places[-(keep // 2)][0] :]
        over = len(tokenizer.encode(short, add_special_tokens=False)) - max_length
    return short


def add_lora(model, seed):
    """Step 4. The tutorial has a dropout of 0.1; without it the loss depends on the samples alone."""
    torch.manual_seed(seed)
    lora = LoraConfig(r=8, lora_alpha=32, lora_dropout=0.0, target_modules=TARGETS, task_type="CAUSAL_LM")
    return get_peft_model(model, lora)


def train(model, tokenizer, examples, settings):
    """Steps 5 and 7: train, and save checkpoints. The losses, one for each optimizer step."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=0.0)
    steps = steps_of(len(examples), settings)
    schedule = get_scheduler("linear", optimizer, 0, len(steps))
    padded = DataCollatorForSeq2Seq(tokenizer)
    losses = []
    model.train()
    for number, members in enumerate(steps, 1):
        # The mean over the answer tokens of the whole step, however many batches it takes. Each batch's own mean,
        # averaged over the batches, would weigh the tokens of short answers more.
        answer_tokens = sum(label != -100 for at in members for label in examples[at]["labels"])
        loss = 0.0
        for first in range(0, len(members), settings.batch):
            batch = padded([examples[at] for at in members[first : first + settings.batch]]).to(model.device)
            part = model(**batch, num_items_in_batch=answer_tokens).loss
            part.backward()
            loss += part.item()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss)
        print(f"step {number}/{len(steps)}  loss {loss:.4f}")
        if number % settings.save_steps == 0 or number == len(steps):
            model.save_pretrained(Path(settings.output) / f"checkpoint-{number}")
    return losses


def steps_of(count, settings):
    """Indices of the examples of each step. An epoch is shuffled anew, and its last step may be short."""
    size, steps = settings.batch * settings.accumulation, []
    for epoch in range(settings.epochs):
        order = list(range(count))
        random.Random(f"{settings.seed}/{epoch}").shuffle(order)
        steps += [order[at : at + size] for at in range(0, count, size)]
    return steps[: settings.max_steps or None]


@torch.no_grad()
def predict(model, tokenizer, prompt):
    """Step 6. The answer to one prompt. A label is short, so few tokens are enough."""
    model.eval()
    ids = torch.tensor([prompt], device=model.device)
    end = tokenizer.convert_tokens_to_ids(END)
    mask = torch.ones_like(ids)
    out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=16, do_sample=False, eos_token_id=end)
    return tokenizer.decode(out[0, len(prompt) :], skip_special_tokens=True)


def main(settings):
    model, tokenizer = load_model(settings.model)
    rows = dataset_jsonl_transfer(settings.train, Path(settings.output) / "new_train.jsonl")
    shown = dataset_jsonl_transfer(settings.test, Path(settings.output) / "new_test.jsonl")[: settings.shown]
    model = add_lora(model, settings.seed)
    examples = [process_func(row, tokenizer, settings.max_length) for row in rows]
    losses = train(model, tokenizer, examples, settings)
    right = 0
    for row in shown:
        example = process_func(row, tokenizer, settings.max_length)
        answer = predict(model, tokenizer, example["input_ids"][: example["labels"].count(-100)])
        right += answer == row["output"]
        print(f"{answer!r}, wanted {row['output']!r}")
    print(f"{right} of {len(shown)} right")
    return losses


if __name__ == "__main__":
    kinds = {field.name: type(field.default) for field in fields(Settings)}
    given = [argument.split("=", 1) for argument in sys.argv[1:]]
    chosen = Settings(**{key: kinds[key](value) for key, value in given})
    if not Path(chosen.train).is_file():
        sys.exit(f"{chosen.train} is not here; fetch it with: weitiao data fetch fudan-news --dest .")
    main(chosen)
