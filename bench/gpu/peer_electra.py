"""ELECTRA pre-training in plain PyTorch, as fast as plain PyTorch goes: packed queries, keys and values, its own fused attention,
the generator's head at masked positions only, masks drawn beforehand, fused AdamW.

Two precisions: "autocast" (fp32 weights, bf16 products), and "bf16" (bf16 weights and activations, fp32 masters)."""
import contextlib
import math

import torch
import torch.nn.functional as F
from torch import nn


def attend(q, k, v, dropout, mask=None):
    """mask: what is added to the scores, -inf for padding."""
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])  # before PyTorch 2
    if mask is not None:
        scores = scores + mask
    return F.dropout(scores.softmax(-1), dropout) @ v


class Norm(nn.LayerNorm):
    """In its weights' precision: what CUDA's autocast does by itself, and the CPU's in older versions does not."""

    def __init__(self, width):
        super().__init__(width, eps=1e-12)

    def forward(self, x):
        return super().forward(x.to(self.weight.dtype))


class Embedding(nn.Module):
    def __init__(self, config):
        super().__init__()
        width = config["embeddingSize"]
        self.word = nn.Embedding(config["vocabSize"], width)
        self.position = nn.Embedding(config["maxPositionEmbeddings"], width)
        self.kind = nn.Embedding(2, width)
        self.norm = Norm(width)

    def forward(self, ids, kinds, dropout):
        x = self.word(ids) + self.position.weight[: ids.shape[1]] + self.kind(kinds)
        return F.dropout(self.norm(x), dropout)


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        hidden, inner = config["hiddenSize"], config["intermediateSize"]
        self.heads = config["numAttentionHeads"]
        self.attention_dropout = config["attentionProbsDropoutProb"]
        self.dropout = config["hiddenDropoutProb"]
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, hidden)
        self.norm1 = Norm(hidden)
        self.up = nn.Linear(hidden, inner)
        self.down = nn.Linear(inner, hidden)
        self.norm2 = Norm(hidden)

    def forward(self, x, mask=None):
        batch, length, hidden = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, hidden // self.heads).unbind(2)
        mixed = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), self.attention_dropout, mask)
        mixed = mixed.transpose(1, 2).reshape(batch, length, hidden)
        x = self.norm1(x + F.dropout(self.out(mixed), self.dropout))
        return self.norm2(x + F.dropout(self.down(F.gelu(self.up(x))), self.dropout))


class Encoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        embedding, hidden = config["embeddingSize"], config["hiddenSize"]
        self.project = nn.Linear(embedding, hidden) if embedding != hidden else nn.Identity()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config["numHiddenLayers"]))

    def forward(self, x, mask=None):
        x = self.project(x)
        for layer in self.layers:
            x = layer(x, mask)
        return x


class Electra(nn.Module):
    """Generator and discriminator with shared embeddings; forward gives the weighted sum of both losses."""

    def __init__(self, discriminator, generator):
        super().__init__()
        self.dropout = discriminator["hiddenDropoutProb"]
        self.embedding = Embedding(discriminator)
        self.discriminator = Encoder(discriminator)
        self.dense = nn.Linear(discriminator["hiddenSize"], discriminator["hiddenSize"])
        self.score = nn.Linear(discriminator["hiddenSize"], 1)
        self.generator = Encoder(generator)
        self.to_embedding = nn.Linear(generator["hiddenSize"], generator["embeddingSize"])
        self.norm = Norm(generator["embeddingSize"])
        self.bias = nn.Parameter(torch.zeros(generator["vocabSize"]))
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)

    def sample(self, logits):
        """One token for each row, by its probability."""
        noise = torch.empty_like(logits).exponential_()
        return (logits.softmax(-1) / noise).argmax(-1)

    def replaced_scores(self, ids, kinds, dropout):
        """The discriminator: one logit a token."""
        x = self.discriminator(self.embedding(ids, kinds, dropout))
        return self.score(F.gelu(self.dense(x))).squeeze(-1)

    def forward(self, ids, masked, kinds, where):
        """where: flat positions that the generator predicts."""
        truth = ids.flatten()[where]
        g = self.generator(self.embedding(masked, kinds, self.dropout)).flatten(0, 1)[where]
        g = self.norm(F.gelu(self.to_embedding(g)))
        logits = F.linear(g, self.embedding.word.weight, self.bias.to(g.dtype)).float()
        masked_loss = F.cross_entropy(logits, truth)
        with torch.no_grad():
            sampled = self.sample(logits)
            replaced = masked.flatten().scatter(0, where, sampled).view_as(ids)
            labels = (replaced != ids).float()
        scores = self.replaced_scores(replaced, kinds, self.dropout).float()
        return masked_loss + 50.0 * F.binary_cross_entropy_with_logits(scores, labels)


def adamw(groups, device):
    options = dict(lr=1e-6, betas=(0.9, 0.999), eps=1e-6)
    return torch.optim.AdamW(groups, fused=True, **options) if device.type == "cuda" else torch.optim.AdamW(groups, **options)


def copy_all(to, source):
    if hasattr(torch, "_foreach_copy_"):
        torch._foreach_copy_(to, source)
    else:
        for a, b in zip(to, source):
            a.copy_(b)


class Trainer:
    def __init__(self, request, device, compile_mode=None, kind=Electra):
        """compile_mode None is eager; otherwise a mode of torch.compile, "default" for its own. kind: Electra, or a class on it."""
        configs = request["configs"]
        self.precision = request["precision"]
        self.device = device
        # Weights are drawn on the device where PyTorch can (2.0 on): large takes seconds on a CPU.
        place = device if hasattr(torch, "set_default_device") else contextlib.nullcontext()
        with place:
            self.model = kind(configs["discriminator"], configs["generator"]).to(device)
        self.masters = []
        self.weights = list(self.model.parameters())
        if self.precision == "bf16":
            self.masters = [p.detach().clone() for p in self.weights]
            self.model.bfloat16()
            self.weights = list(self.model.parameters())
            for master in self.masters:
                master.grad = torch.zeros_like(master)
        trained = self.masters or self.weights
        self.optimizer = adamw(
            [{"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.01},
             {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0}], device)
        self.trained = trained
        self.loss = self.model
        self.graphs = compile_mode == "reduce-overhead"
        if compile_mode is not None:
            mode = None if compile_mode == "default" else compile_mode
            self.loss = torch.compile(self.model, dynamic=False, mode=mode)
        self.feed = [self.batch(request, configs) for _ in range(4)]
        self.count = 0

    def batch(self, request, configs):
        sequences, length = request["batchSize"], request["sequenceLength"]
        vocabulary = configs["discriminator"]["vocabSize"]
        ids = torch.randint(min(1000, vocabulary // 2), vocabulary, (sequences, length), device=self.device)
        each = max(1, round(configs["maskProbability"] * length))
        order = torch.rand(sequences, length, device=self.device).argsort(-1)[:, :each]
        where = (order + torch.arange(sequences, device=self.device)[:, None] * length).flatten()
        masked = ids.flatten().scatter(0, where, 3).view_as(ids)
        return ids, masked, torch.zeros_like(ids), where

    def step(self):
        autocast = contextlib.nullcontext()
        if self.precision == "autocast":
            autocast = torch.autocast(self.device.type, dtype=torch.bfloat16)
        if self.graphs:
            torch.compiler.cudagraph_mark_step_begin()
        with autocast:
            loss = self.loss(*self.feed[self.count % 4])
        loss.backward()
        if self.masters:
            copy_all([m.grad for m in self.masters], [p.grad for p in self.weights])
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        with torch.no_grad():
            if self.masters:
                copy_all(self.weights, self.masters)
        for p in self.weights:
            p.grad = None
        self.count += 1
        return loss
