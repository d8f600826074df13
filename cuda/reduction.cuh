// Sum, mean and maximum over any axes, and the index of the largest along the last axis.
//
//   y[kept] = sum | mean | max of x over the reduced axes
//   argmax: the first largest of the last axis; NaN counts as largest
//
// native/engine/reduction_plan.h takes out axes of size 1 and makes neighbours of one kind one
// axis, so two kernels serve every case: the last axis is reduced (reduction_runs.cuh) or kept
// (reduction_columns.cuh). Bytes: x once, y once, and partials of a hundredth of x or less; one
// operation an element.
//
// Deterministic: a result's numbers are cut and put together in an order that follows from the
// lengths of the reduced axes (and of the last) alone. fp32 accumulators take some tens of numbers
// each before they meet in halves, and partials of long sums are added in double precision. Empty
// sums are 0, empty means NaN; an empty maximum is refused.
#include "reduction_argmax.cuh"
#include "reduction_columns.cuh"
#include "reduction_runs.cuh"

namespace voltaic {
namespace {

template <class T>
__global__ void __launch_bounds__(256) empty_kernel(T* y, int64_t elements, float value) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
  if (i < elements) y[i] = from_float<T>(value);
}

template <class Op>
voltaic_status reduce(const voltaic_call* call, const char* op, bool mean) {
  const voltaic_tensor &x = tensor(call, 0), &y = tensor(call, 1);
  ReductionPlan plan;
  const voltaic_status status = plan_reduction(call, op, Op::kEmptyHasResult, plan);
  if (status != VOLTAIC_OK || y.elements == 0) return status;
  return with_float(x.dtype, [&]<class T>(T*) {
    const T* from = static_cast<const T*>(x.data);
    T* to = static_cast<T*>(y.data);
    if (x.elements == 0)
      return launch(call, empty_kernel<T>, blocks_for(y.elements, 256), 256, 0, to, y.elements,
                    mean ? __builtin_nanf("") : 0.0f);
    const float divisor = mean ? static_cast<float>(x.elements / y.elements) : 1.0f;
    return plan.inner_is_reduced ? reduce_runs<Op>(call, plan, from, to, divisor)
                                 : reduce_columns<Op>(call, plan, from, to, divisor);
  });
}

voltaic_status sum(const voltaic_call* call) { return reduce<Sum>(call, "sum", false); }
voltaic_status mean(const voltaic_call* call) { return reduce<Sum>(call, "mean", true); }
voltaic_status max(const voltaic_call* call) { return reduce<Max>(call, "max", false); }

voltaic_status argmax(const voltaic_call* call) {
  const voltaic_status status = check_argmax(call);
  if (status != VOLTAIC_OK) return status;
  return with_float(tensor(call, 0).dtype, [&]<class T>(T*) { return first_largest<T>(call); });
}

}  // namespace

VOLTAIC_CUDA_KERNELS(reduction, {"sum", sum}, {"mean", mean}, {"max", max}, {"argmax", argmax})

}  // namespace voltaic
