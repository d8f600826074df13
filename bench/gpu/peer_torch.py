"""PyTorch's side of npm run gpu:bench: answers each line of standard input, a request in JSON, with one line that begins with @.

A request names an op and shapes (the "peer" of a row in bench/families). Of several ways to do it (its attention backends, eager,
compiled) all are timed, and the fastest is the answer. --smoke runs on the CPU; use tiny shapes."""
import contextlib
import functools
import gc
import json
import statistics
import sys
import time
import traceback

import torch
import torch.nn.functional as F

import peer_electra

smoke = "--smoke" in sys.argv
device = torch.device("cpu" if smoke else "cuda")
aten = torch.ops.aten
types = {"float32": torch.float32, "bfloat16": torch.bfloat16}
torch.set_float32_matmul_precision("high")
with contextlib.suppress(ImportError):  # before PyTorch 2
    import torch._functorch.config

    torch._functorch.config.donated_buffer = False  # backward is repeated over one forward


def normal(shape, dtype, std=1.0):
    return (torch.randn(shape, device=device) * std).to(types[dtype])


def synchronize():
    if not smoke:
        torch.cuda.synchronize()


def spread(seconds):
    return dict(median=statistics.median(seconds), least=min(seconds), most=max(seconds))


def seconds_of(run, repeats):
    if smoke:
        begin = time.perf_counter()
        for _ in range(repeats):
            run()
        return time.perf_counter() - begin
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000


def time_calls(calls, rounds=7, round_seconds=0.02, graph=True):
    """Seconds of a call: median, least, most. Calls take turns over buffers of their own, outputs too. On a card they are captured
    into one graph where they can be, so that PyTorch is not timed by how fast it queues."""
    kept = [call() for call in calls]
    synchronize()
    captured, times = False, 1

    def run():
        for call in calls:
            call()

    if graph and not smoke:
        try:
            kept = None
            recorded = torch.cuda.CUDAGraph()
            many = -(-10 // len(calls))  # ten calls at least: between two graphs there is a gap
            with torch.cuda.graph(recorded, stream=torch.cuda.current_stream()):
                for _ in range(many):
                    kept = [call() for call in calls]
            run, captured, times = recorded.replay, True, many
        except Exception as error:
            print(f"not captured: {str(error).splitlines()[0]}", file=sys.stderr)
            synchronize()
    run()
    synchronize()
    repeats = max(1, round(round_seconds / max(1e-6, seconds_of(run, 1))))
    each = [seconds_of(run, repeats) / repeats / times / len(calls) for _ in range(rounds)]
    del kept
    return dict(spread(each), captured=captured)


def composed(function, inputs, wrt, backward):
    """Ways to time a function of tensors, or its gradient with respect to those whose numbers are in wrt."""

    def way(compiled):
        def make():
            call = torch.compile(function, dynamic=False) if compiled else function
            values = [v.requires_grad_() if i in wrt else v for i, v in enumerate(inputs())]
            if not backward:
                return lambda: call(*values)
            result = call(*values)
            gradient = torch.randn_like(result)
            leaves = [values[i] for i in wrt]
            return lambda: torch.autograd.grad(result, leaves, gradient, retain_graph=True)

        return make

    return {"eager": way(False), **({"compiled": way(True)} if hasattr(torch, "compile") else {})}


# ---- each op: ways by name; a way makes one set of buffers and gives the function to time


def copy(r):
    def make():
        a = normal(r["elements"], r["dtype"])
        b = torch.empty_like(a)
        return lambda: b.copy_(a)

    return {"copy_": make}


def product(r):
    m, n, k, dtype, epilogue = r["m"], r["n"], r["k"], r["dtype"], r.get("epilogue", 0)

    def inputs():
        a = normal((k, m), dtype).t() if r["transposeA"] else normal((m, k), dtype)
        b = normal((n, k), dtype, 0.02).t() if r["transposeB"] else normal((k, n), dtype, 0.02)
        return [a, b, normal((n,), dtype), normal((m, n), dtype) if epilogue == 3 else None]

    def function(a, b, bias, saved):
        if epilogue == 3:
            gradient = aten.gelu_backward(a @ b, saved)
            return gradient, gradient.sum(0)
        sums = torch.addmm(bias, a, b) if epilogue else a @ b
        return F.gelu(sums) if epilogue == 2 else sums

    ways = composed(function, inputs, [], False)
    return ways if epilogue >= 2 else {"eager": ways["eager"]}


def attention(r):
    shape = (r["sequences"], r["length"], r["heads"], r["size"])

    def way(backend):
        def make():
            q, k, v = (normal(shape, r["dtype"]).transpose(1, 2).requires_grad_() for _ in range(3))

            def forward():
                with backend():
                    return peer_electra.attend(q, k, v, r["probability"])

            if not r.get("backward"):
                return forward
            result = forward()
            gradient = torch.randn_like(result)
            return lambda: torch.autograd.grad(result, [q, k, v], gradient, retain_graph=True)

        # Outside of a capture, dropout leaves its seed on the host; a captured backward would look for it on the card.
        make.graph = not (r.get("backward") and r["probability"] > 0)
        return make

    if smoke:
        return {"default": way(contextlib.nullcontext)}
    from torch.nn.attention import SDPBackend, sdpa_kernel

    names = ["FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION"]
    backends = {name: getattr(SDPBackend, name) for name in names if hasattr(SDPBackend, name)}
    return {name.split("_")[0].lower(): way(lambda b=b: sdpa_kernel(b)) for name, b in backends.items()}


def gelu(r):
    def make():
        x, dy = normal(r["shape"], r["dtype"]), normal(r["shape"], r["dtype"])
        return (lambda: aten.gelu_backward(dy, x)) if r.get("backward") else (lambda: F.gelu(x))

    return {"eager": make}


def layer_norm(r):
    width = r["shape"][-1]

    def make():
        x, dy = normal(r["shape"], r["dtype"]), normal(r["shape"], r["dtype"])
        w, b = normal((width,), r["dtype"]), normal((width,), r["dtype"])
        if not r.get("backward"):
            return lambda: F.layer_norm(x, (width,), w, b, 1e-12)
        _, mean, rstd = torch.native_layer_norm(x, (width,), w, b, 1e-12)
        return lambda: aten.native_layer_norm_backward(dy, x, (width,), mean, rstd, w, b, [True] * 3)

    function = lambda x, w, b: F.layer_norm(x, (width,), w, b, 1e-12)
    inputs = lambda: [normal(r["shape"], r["dtype"]), normal((width,), r["dtype"]), normal((width,), r["dtype"])]
    return {**composed(function, inputs, [0, 1, 2], r.get("backward")), "eager": make}


def dropout_residual_layer_norm(r):
    shape, dtype = r["shape"], r["dtype"]
    width = shape[-1]

    def function(x, residual, w, b):
        return F.layer_norm(F.dropout(x, r["probability"]) + residual, (width,), w, b, 1e-12)

    inputs = lambda: [normal(shape, dtype), normal(shape, dtype), normal((width,), dtype), normal((width,), dtype)]
    return composed(function, inputs, [0, 1, 2, 3], r.get("backward"))


def embedding(r):
    tokens, width, dtype = r["tokens"], r["width"], r["dtype"]

    def inputs():
        ids = (r["vocabulary"] * torch.rand(tokens, device=device) ** 4).long()
        positions = torch.arange(tokens, device=device) % r["length"]
        tables = [normal((rows, width), dtype) for rows in (r["vocabulary"], 512, 2)]
        return [ids, positions, torch.zeros_like(ids), *tables, normal((width,), dtype), normal((width,), dtype)]

    def function(ids, positions, kinds, word, position, kind, w, b):
        x = F.embedding(ids, word) + F.embedding(positions, position) + F.embedding(kinds, kind)
        return F.dropout(F.layer_norm(x, (width,), w, b, 1e-12), r["probability"])

    return composed(function, inputs, [3, 4, 5, 6, 7], r.get("backward"))


def cross_entropy(r):
    rows, vocabulary = r["rows"], r["vocabulary"]

    def function(logits, targets):
        loss = F.cross_entropy(logits, targets)
        if not r.get("sampling"):
            return loss
        with torch.no_grad():
            noise = torch.empty_like(logits).exponential_()
            return loss, (logits.softmax(-1) / noise).argmax(-1), (logits.argmax(-1) == targets).sum()

    inputs = lambda: [normal((rows, vocabulary), "float32"), torch.randint(vocabulary, (rows,), device=device)]
    return composed(function, inputs, [0], r.get("backward"))


def discriminator_head(r):
    tokens, width = r["shape"]

    def function(hidden, w, b, labels):
        return F.binary_cross_entropy_with_logits(F.linear(hidden, w, b).squeeze(-1).float(), labels)

    inputs = lambda: [normal((tokens, width), r["dtype"]), normal((1, width), r["dtype"], 0.05), normal((1,), r["dtype"]),
                      (torch.rand(tokens, device=device) < 0.15).float()]
    return composed(function, inputs, [0, 1, 2], r.get("backward"))


def softmax(r):
    function = (lambda x: F.log_softmax(x, -1)) if r["logarithm"] else (lambda x: F.softmax(x, -1))
    return composed(function, lambda: [normal(r["shape"], r["dtype"])], [0], r.get("backward"))


def add(r):
    return composed(torch.add, lambda: [normal(r["shape"], r["dtype"]), normal(r["shape"], r["dtype"])], [], False)


def dropout(r):
    return composed(lambda x: F.dropout(x, r["probability"]), lambda: [normal(r["shape"], r["dtype"])], [], False)


def gather(r):
    def make():
        x = normal((r["tokens"], r["width"]), r["dtype"])
        index = torch.arange(r["rows"], device=device) * (r["tokens"] // r["rows"])
        return lambda: x.index_select(0, index)

    return {"eager": make}


def parameters(r):
    """A model's worth of tensors: one of a fifth of all, the rest alike."""
    first = r["parameters"] // 5
    each = (r["parameters"] - first) // 200
    return [torch.randn(n, device=device) for n in [first] + [each] * 200]


def global_norm(r):
    def make():
        gradients = parameters(r)
        return lambda: torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))

    return {"foreach": make}


def adamw(r):
    def make():
        weights = parameters(r)
        for w in weights:
            w.grad = torch.randn_like(w)
        return peer_electra.adamw([{"params": weights, "weight_decay": 0.01}], device).step

    make.graph = False
    return {"fused": make}


ops = dict(copy=copy, product=product, attention=attention, gelu=gelu, layer_norm=layer_norm, embedding=embedding,
           dropout_residual_layer_norm=dropout_residual_layer_norm, cross_entropy=cross_entropy, softmax=softmax,
           discriminator_head=discriminator_head, add=add, dropout=dropout, gather=gather, global_norm=global_norm, adamw=adamw)


def clean():
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()  # its limit on versions of one function counts over requests
    gc.collect()
    if not smoke:
        torch.cuda.empty_cache()


def measure(r):
    """The fastest way's times, its name, and every way's median."""
    results, failed = {}, {}
    for name, make in ops[r["op"]](r).items():
        if name in r.get("leave_out", []):
            continue
        try:
            calls = [make() for _ in range(r.get("sets", 1))]
            results[name] = time_calls(calls, graph=getattr(make, "graph", True))
        except Exception as error:
            failed[name] = (str(error).splitlines() or [type(error).__name__])[0][:200]
            print(traceback.format_exc(), file=sys.stderr)
        calls = None
        clean()
    if not results:
        raise RuntimeError("; ".join(f"{name}: {why}" for name, why in failed.items()))
    best = min(results, key=lambda name: results[name]["median"])
    return dict(results[best], way=best, ways={name: result["median"] for name, result in results.items()}, failed=failed)


@functools.cache
def fastest_attention(sequences, length, heads, size, probability):
    """The attention backend that is fastest at these shapes, forward and backward together."""
    shape = dict(op="attention", sequences=sequences, length=length, heads=heads, size=size, probability=probability,
                 dtype="bfloat16")
    forward, backward = measure(shape)["ways"], measure(dict(shape, backward=True))["ways"]
    return min((name for name in forward if name in backward), key=lambda name: forward[name] + backward[name])


def step(r):
    """A whole pre-training step, seconds. mode: eager, default, reduce-overhead (torch.compile's)."""
    end = time.perf_counter() + r["seconds"]
    attention_backend, name = contextlib.nullcontext, "default"
    if not smoke:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        config = r["configs"]["discriminator"]
        heads = config["numAttentionHeads"]
        name = fastest_attention(r["batchSize"], r["sequenceLength"], heads, config["hiddenSize"] // heads,
                                 config["attentionProbsDropoutProb"])
        chosen = [getattr(SDPBackend, f"{name.upper()}_ATTENTION"), SDPBackend.MATH]
        attention_backend = lambda: sdpa_kernel(chosen)
        torch.cuda.reset_peak_memory_stats()
    trainer = peer_electra.Trainer(r, device, None if r["mode"] == "eager" else r["mode"])
    begin = time.perf_counter()
    with attention_backend():
        for _ in range(r["warm"]):
            loss = trainer.step()
        synchronize()
        warming = time.perf_counter() - begin
        seconds = []
        while len(seconds) < r["rounds"] and not (len(seconds) >= 3 and time.perf_counter() > end):
            seconds.append(seconds_of(trainer.step, r["stepsPerRound"]) / r["stepsPerRound"])
        loss = float(trainer.step().detach())
    return dict(spread(seconds), attention=name, warmingSeconds=warming, loss=loss,
                parameters=sum(p.numel() for p in trainer.weights),
                peakBytes=0 if smoke else torch.cuda.max_memory_allocated())


def answer(r):
    if r["op"] == "info":
        name = "CPU, smoke test" if smoke else torch.cuda.get_device_name()
        properties = None if smoke else torch.cuda.get_device_properties(0)
        return dict(torch=torch.__version__, cuda=torch.version.cuda, device=name,
                    cacheBytes=getattr(properties, "L2_cache_size", 0))
    stream = contextlib.nullcontext() if smoke else torch.cuda.stream(torch.cuda.Stream())
    with stream:  # one stream for all, so that backward can be captured
        return step(r) if r["op"] == "step" else measure(r)


def main():
    if not smoke and not torch.cuda.is_available():
        print("@" + json.dumps(dict(error=dict(code="ERR_UNSUPPORTED", message="PyTorch sees no CUDA device"))), flush=True)
        return
    for line in sys.stdin:
        try:
            reply = dict(result=answer(json.loads(line)))
        except Exception as error:
            print(traceback.format_exc(), file=sys.stderr)
            message = (str(error).splitlines() or [type(error).__name__])[0][:300]
            reply = dict(error=dict(code="ERR_FAILED", message=message))
        clean()
        print("@" + json.dumps(reply), flush=True)


main()
