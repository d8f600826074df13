"""PyTorch's side of bench:peers on the CPU, on the ELECTRA of ../gpu/peer_electra.py: answers each line of standard input as serve.mjs
does. Its only argument is the number of threads; how its libraries are set is in sides.mjs."""
import json
import math
import os
import sys
import time
import traceback

import torch
import torch.nn.functional as F

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "gpu"))
import peer_electra  # noqa: E402

torch.set_num_threads(int(sys.argv[1]))
torch.manual_seed(0)
cpu = torch.device("cpu")
dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "fp32": torch.float32, "bf16": torch.bfloat16}


class Electra(peer_electra.Electra):
    """Samples by one number a row against a running sum: on a CPU, noise for every logit takes longer than the rest of the head."""

    def sample(self, logits):
        sums = logits.softmax(-1).cumsum(-1)
        places = torch.searchsorted(sums, torch.rand(len(sums), 1) * sums[:, -1:]).squeeze(-1)
        return places.clamp_(max=logits.shape[-1] - 1)


def step(r):
    precision = "autocast" if r["precision"] == "bf16" else "fp32"
    trainer = peer_electra.Trainer(dict(r, precision=precision), cpu, kind=Electra)
    losses = []

    def call():
        losses.append(float(trainer.step().detach()))

    return call, lambda: dict(loss=losses[0])


def tensors_of(path):
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        data = bytearray(file.read())
    header.pop("__metadata__", None)
    return {
        name: torch.frombuffer(data, dtype=torch.float32, offset=info["data_offsets"][0],
                               count=torch.Size(info["shape"]).numel()).view(info["shape"])
        for name, info in header.items()
    }


def load(model, tensors):
    """Puts the weights of a model folder into the discriminator."""
    names = {"embedding.word": "electra.embeddings.word_embeddings", "embedding.position": "electra.embeddings.position_embeddings",
             "embedding.kind": "electra.embeddings.token_type_embeddings", "embedding.norm": "electra.embeddings.LayerNorm",
             "discriminator.project": "electra.embeddings_project", "dense": "discriminator_predictions.dense",
             "score": "discriminator_predictions.dense_prediction"}
    for i in range(len(model.discriminator.layers)):
        ours, theirs = f"discriminator.layers.{i}", f"electra.encoder.layer.{i}"
        names.update({f"{ours}.out": f"{theirs}.attention.output.dense", f"{ours}.norm1": f"{theirs}.attention.output.LayerNorm",
                      f"{ours}.up": f"{theirs}.intermediate.dense", f"{ours}.down": f"{theirs}.output.dense",
                      f"{ours}.norm2": f"{theirs}.output.LayerNorm"})
        for kind in ("weight", "bias"):
            parts = [tensors[f"{theirs}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            tensors[f"{ours}.qkv.{kind}"] = torch.cat(parts)
        names[f"{ours}.qkv"] = f"{ours}.qkv"
    state = {}
    for ours, theirs in names.items():
        for kind in ("weight", "bias"):
            if f"{theirs}.{kind}" in tensors:
                state[f"{ours}.{kind}"] = tensors[f"{theirs}.{kind}"]
    unmatched = model.load_state_dict(state, strict=False)
    missing = [name for name in unmatched.missing_keys if not name.startswith(("generator.", "to_embedding.", "norm.", "bias"))]
    if missing or unmatched.unexpected_keys:
        raise RuntimeError(f"weights do not fit: {missing} {unmatched.unexpected_keys}")


class Discriminator(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids, kinds):
        return self.model.replaced_scores(ids, kinds, 0.0)


def discriminator(r):
    """Full batches only: there is no mask. Traced and frozen; in bf16 with all weights in bf16, which is faster than autocast."""
    config = dict(r["configs"]["discriminator"], hiddenDropoutProb=0.0, attentionProbsDropoutProb=0.0)
    model = Electra(config, r["configs"]["generator"])
    load(model, tensors_of(os.path.join(r["folder"], "model.safetensors")))
    model = Discriminator(model.to(dtypes[r["precision"]])).eval()
    batches = [torch.tensor(rows) for rows in r["batches"]]
    kinds = torch.zeros_like(batches[0])
    with torch.inference_mode():
        traced = torch.jit.freeze(torch.jit.trace(model, (batches[0], kinds), check_trace=False))
    count = 0

    def call():
        nonlocal count
        count += 1
        with torch.inference_mode():
            return traced(batches[(count - 1) % len(batches)], kinds)

    def about():
        with torch.inference_mode():
            return dict(logits=traced(batches[0], kinds).float().flatten().tolist())

    return call, about


def product(r):
    """The shapes of a row of families/gemm.mjs, with its bias, GELU or GELU's gradient."""
    m, n, k, dtype, epilogue = r["m"], r["n"], r["k"], dtypes[r["dtype"]], r["epilogue"]
    a = torch.randn(k, m).to(dtype).t() if r["transposeA"] else torch.randn(m, k).to(dtype)
    b = (torch.randn(n, k) * 0.02).to(dtype).t() if r["transposeB"] else (torch.randn(k, n) * 0.02).to(dtype)
    bias, saved = torch.randn(n).to(dtype), torch.randn(m, n).to(dtype) if epilogue == 3 else None

    def call():
        if epilogue == 3:
            gradient = torch.ops.aten.gelu_backward(a @ b, saved)
            return gradient, gradient.sum(0)
        sums = torch.addmm(bias, a, b) if epilogue else torch.mm(a, b)
        return F.gelu(sums) if epilogue == 2 else sums

    return call, dict


class Classifier(torch.nn.Module):
    """The mean cross-entropy of two classes over padded sequences, as Hugging Face's head has it."""

    def __init__(self, config):
        super().__init__()
        self.dropout = config["hiddenDropoutProb"]
        self.embedding = peer_electra.Embedding(config)
        self.encoder = peer_electra.Encoder(config)
        self.dense = torch.nn.Linear(config["hiddenSize"], config["hiddenSize"])
        self.out = torch.nn.Linear(config["hiddenSize"], 2)

    def forward(self, ids, kinds, mask, labels):
        x = self.encoder(self.embedding(ids, kinds, self.dropout), mask)[:, 0]
        x = F.gelu(self.dense(F.dropout(x, self.dropout)))
        return F.cross_entropy(self.out(F.dropout(x, self.dropout)).float(), labels)


def padded(rows, labels):
    """To the longest of the batch, as Hugging Face's collator does."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    real = torch.arange(longest) < torch.tensor([[len(row)] for row in rows])
    mask = torch.zeros(real.shape).masked_fill(~real, -math.inf)[:, None, None]
    return ids, torch.zeros_like(ids), mask, torch.tensor(labels)


def finetune(r):
    """Random batches padded to their longest, AdamW over all weights, clipping. A call is a pass over all batches."""
    model = Classifier(r["config"])
    weights = list(model.parameters())
    optimizer = peer_electra.adamw([{"params": weights, "weight_decay": 0.0}], cpu)
    order = torch.randperm(len(r["rows"])).tolist()
    batches = []
    for begin in range(0, len(order), r["batchSize"]):
        chosen = order[begin:begin + r["batchSize"]]
        batches.append(padded([r["rows"][i] for i in chosen], [r["labels"][i] for i in chosen]))
    losses = []

    def call():
        for ids, kinds, mask, labels in batches:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=r["precision"] == "bf16"):
                loss = model(ids, kinds, mask, labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(float(loss.detach()))

    return call, lambda: dict(loss=sum(losses[:len(batches)]) / len(batches))


makers = dict(step=step, discriminator=discriminator, product=product, finetune=finetune)
work = None


def timed(calls):
    seconds = []
    for _ in range(calls):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return seconds


def answer(r):
    global work
    if r["do"] == "info":
        return dict(name="PyTorch", version=torch.__version__, threads=torch.get_num_threads())
    if r["do"] == "prepare":
        work = None
        work, about = makers[r["kind"]](r)
        first = timed(1)[0]
        seconds = first if first > 2 else timed(1)[0]
        return dict(about(), seconds=seconds)
    if r["calls"] > 1:
        timed(min(3, r["calls"]))
    return dict(seconds=timed(r["calls"]))


for line in sys.stdin:
    try:
        reply = dict(result=answer(json.loads(line)))
    except Exception as error:
        print(traceback.format_exc(), file=sys.stderr)
        message = (str(error).splitlines() or [type(error).__name__])[0][:300]
        reply = dict(error=dict(code="ERR_FAILED", message=message))
    print("@" + json.dumps(reply), flush=True)
