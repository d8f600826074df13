// Random numbers into tensors: uniform, normal, truncated normal, Bernoulli, permutation, dropout.
// Every number is a function of (state, site, element) alone: native/engine/philox.h.
//
// Element i of the flat array has w, word i%4 of block i/4, and u = ((w >> 9) + 1/2) / 2^23.
//   uniform           u * (high - low) + low
//   normal            a pair i, i+1 (i even) from its two u, v, with r = sqrt(-2 log u):
//                     r cos(2 pi v) * std + mean, r sin(2 pi v) * std + mean
//   truncated_normal  y = 2 u - 1, c = y * erf(sqrt(2)), w = -log(1 - c^2), z = y Q(w):
//                     z * std + mean, z cut to [-2, 2]
//   bernoulli         1 where u < probability (rounded to fp32)
//   permutation       0..n-1 sorted by (word, index): a stable radix sort, three digits of 11 bits
//   dropout           dropout_runs.h; its backward is the op itself, on the gradient
//
// The formulas are evaluated in fp32 with nothing but +, -, *, sqrt and comparisons, each rounded
// on its own and never fused, so that every processor, and the GPU, gives the very same bits. log
// is vlog_form<false> of simd_math.h; q = round(4 v), f = 4 v - q give cos and sin of 2 pi v as
// sin(pi/2 f) = f S(f^2) and cos(pi/2 f) = 1 + f^2 C(f^2), turned by q quarters. Relative errors of
// the fits: S 3e-8, C 1e-9, Q 2e-8.
//
// Bytes: 4 written per element (1 for bernoulli); dropout 2 times the storage size; permutation 80.
// Dropout on one Zen 4 core with AVX-512, ns an element: 0.24 fp32, 0.27 bf16.
#include "dropout_runs.h"
#include "simd_math.h"

namespace voltaic {
namespace {

constexpr int64_t kGrain = 16384;  // elements of a task: whole blocks, whatever the vector width

// Runs transform(words, values) for kWidth blocks at a time and write(i, bits, count) for their
// elements i to i + count - 1 in flat order. Lane l of words[w] and values[w] is word w of block l.
template <class Transform, class Write>
void for_words(const int32_t* state, uint32_t site, int64_t elements, const Transform& transform,
               const Write& write) {
  parallel_ranges(elements, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += 4 * kWidth) {
      vuint words[4], values[4];
      uint32_t flat[4 * kWidth];
      philox_blocks<kForStore>(state, site, (uint64_t)i / 4, words);
      transform(words, values);
      store_in_order(flat, values);
      write(i, flat, smaller(4 * kWidth, end - i));
    }
  });
}

uint32_t site_of(const voltaic_call* call, int index) { return (uint32_t)whole(call, index); }

template <class Transform>
voltaic_status fill_floats(const voltaic_call* call, int site_index, const Transform& transform) {
  float* y = data<float>(call, 1);
  for_words(data<const int32_t>(call, 0), site_of(call, site_index), tensor(call, 1).elements,
            transform, [&](int64_t i, const uint32_t* bits, int64_t count) {
              memcpy(y + i, bits, (size_t)count * 4);
            });
  return VOLTAIC_OK;
}

voltaic_status uniform(const voltaic_call* call) {
  const float low = (float)attribute(call, 0),
              range = (float)(attribute(call, 1) - attribute(call, 0));
  return fill_floats(call, 2, [=](const vuint* words, vuint* values) {
    for (int w = 0; w < 4; w++) values[w] = (vuint)(uniform_from_words(words[w]) * range + low);
  });
}

struct Turn {
  vfloat cosine, sine;
};
// cos and sin of 2 pi v, v in (0, 1); 4 v and f are exact.
VOLTAIC_INLINE Turn turn(vfloat v) {
  constexpr float kSine[] = {1.57079637f, -0.645966589f, 0.0797115937f, -0.004682987f};
  constexpr float kCosine[] = {-1.23370051f, 0.253668517f, -0.0208552405f, 0.000893477583f};
  const vfloat quarters = v * 4.0f, q = round_nearest(quarters), f = quarters - q, square = f * f;
  const vfloat sine = polynomial<false>(square, kSine) * f;
  const vfloat cosine = polynomial<false>(square, kCosine) * square + 1.0f;
  const vint quadrant = truncate_to_int(q), odd = -(quadrant & 1);
  const vint cosine_sign = ((quadrant + 1) & 2) << 30, sine_sign = (quadrant & 2) << 30;
  return {as_float(as_int(select(odd, sine, cosine)) ^ cosine_sign),
          as_float(as_int(select(odd, cosine, sine)) ^ sine_sign)};
}

voltaic_status normal(const voltaic_call* call) {
  const float mean = (float)attribute(call, 0), std = (float)attribute(call, 1);
  return fill_floats(call, 2, [=](const vuint* words, vuint* values) {
    for (int pair = 0; pair < 4; pair += 2) {
      const vfloat radius = vsqrt(vlog_form<false>(uniform_from_words(words[pair])) * -2.0f);
      const Turn direction = turn(uniform_from_words(words[pair + 1]));
      values[pair] = (vuint)(radius * direction.cosine * std + mean);
      values[pair + 1] = (vuint)(radius * direction.sine * std + mean);
    }
  });
}

// The z with Phi(z) = Phi(-2) + u (Phi(2) - Phi(-2)).
VOLTAIC_INLINE vfloat truncated_quantile(vfloat u) {
  constexpr float kQ[] = {1.19628799f,      0.313188344f,    0.0155824255f,   -0.0031292222f,
                          -0.000204859491f, 8.62432644e-05f, -6.03120407e-06f};
  const vfloat y = u * 2.0f - 1.0f, c = y * 0.954499722f;
  const vfloat w = -vlog_form<false>(1.0f - c * c);
  const vfloat z = polynomial<false>(w, kQ) * y;
  return vmin(splat(2.0f), vmax(splat(-2.0f), z));
}

voltaic_status truncated_normal(const voltaic_call* call) {
  const float mean = (float)attribute(call, 0), std = (float)attribute(call, 1);
  return fill_floats(call, 2, [=](const vuint* words, vuint* values) {
    for (int w = 0; w < 4; w++)
      values[w] = (vuint)(truncated_quantile(uniform_from_words(words[w])) * std + mean);
  });
}

voltaic_status bernoulli(const voltaic_call* call) {
  const double probability = attribute(call, 0);
  if (!(probability >= 0 && probability <= 1))
    return fail(call, VOLTAIC_ERROR_ARGUMENT,
                "bernoulli: probability is %g, expected a number from 0 to 1", probability);
  uint8_t* y = data<uint8_t>(call, 1);
  for_words(
      data<const int32_t>(call, 0), site_of(call, 1), tensor(call, 1).elements,
      [=](const vuint* words, vuint* values) {
        for (int w = 0; w < 4; w++)
          values[w] = (vuint)(uniform_from_words(words[w]) < (float)probability) & 1u;
      },
      [&](int64_t i, const uint32_t* bits, int64_t count) {
        for (int64_t k = 0; k < count; k++) y[i + k] = (uint8_t)bits[k];
      });
  return VOLTAIC_OK;
}

voltaic_status permutation(const voltaic_call* call) {
  constexpr int kBits = 11, kBuckets = 1 << kBits;
  const int64_t n = tensor(call, 1).elements;
  int32_t* y = data<int32_t>(call, 1);
  if (n > 2147483648)
    return fail(call, VOLTAIC_ERROR_ARGUMENT, "permutation: n is %lld, expected at most 2147483648",
                (long long)n);
  // word << 32 | index, in two halves that take turns
  const size_t bytes = (size_t)n * 2 * sizeof(uint64_t);
  uint64_t* from = (uint64_t*)thread_scratch(0, bytes);
  if (from == nullptr && n > 0)
    return fail(call, VOLTAIC_ERROR_OUT_OF_MEMORY,
                "permutation: no memory for %lld bytes of scratch", (long long)bytes);
  for_words(
      data<const int32_t>(call, 0), site_of(call, 0), n,
      [](const vuint* words, vuint* values) {
        for (int w = 0; w < 4; w++) values[w] = words[w];
      },
      [&](int64_t i, const uint32_t* words, int64_t count) {
        for (int64_t k = 0; k < count; k++)
          from[i + k] = (uint64_t)words[k] << 32 | (uint64_t)(i + k);
      });
  uint64_t* to = from + n;
  for (int shift = 32; shift < 64; shift += kBits) {
    uint32_t starts[kBuckets] = {};
    for (int64_t i = 0; i < n; i++) starts[from[i] >> shift & (kBuckets - 1)]++;
    uint32_t before = 0;
    for (uint32_t& start : starts) {
      const uint32_t count = start;
      start = before;
      before += count;
    }
    for (int64_t i = 0; i < n; i++) to[starts[from[i] >> shift & (kBuckets - 1)]++] = from[i];
    uint64_t* sorted = to;
    to = from;
    from = sorted;
  }
  for (int64_t i = 0; i < n; i++) y[i] = (int32_t)(uint32_t)from[i];
  return VOLTAIC_OK;
}

template <class T>
voltaic_status drop(const voltaic_call* call) {
  const T* x = data<const T>(call, 0);
  T* y = data<T>(call, 2);
  DropoutSite site;
  const voltaic_status status = dropout_site(call, 1, 0, &site);
  if (status != VOLTAIC_OK) return status;
  parallel_ranges(tensor(call, 0).elements, kGrain, [&](int64_t begin, int64_t end) {
    dropout_run(site, begin, end - begin, x + begin, y + begin);
  });
  return VOLTAIC_OK;
}

voltaic_status dropout(const voltaic_call* call) {
  return with_float(tensor(call, 0).dtype, [&]<class T>(T*) { return drop<T>(call); });
}

}  // namespace

VOLTAIC_KERNELS(random, {"uniform", uniform}, {"normal", normal},
                {"truncated_normal", truncated_normal}, {"bernoulli", bernoulli},
                {"permutation", permutation}, {"dropout", dropout})

}  // namespace voltaic
