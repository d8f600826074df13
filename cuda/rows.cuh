// Moving data: rows by index and back, axes in another order, slices.
//
//   gather_rows       y[i, :] = x[index[i], :]
//   scatter_add_rows  x[index[i], :] += y[i, :]
//   permute           y's axis d is x's axis axis_d
//   slice             y = x[start : start + n] along an axis; slice_assign writes the other way
//
// Bytes: what is moved is read once and written once; no arithmetic but scatter_add's addition, in
// fp32. Copies are in rows_copy.cuh, transpositions in rows_transpose.cuh, scatter_add_rows in
// rows_scatter.cuh.
#include "rows_scatter.cuh"
#include "rows_transpose.cuh"

namespace voltaic {
namespace {

voltaic_status slice(const voltaic_call* call) {
  Slice plan;
  const voltaic_tensor &x = tensor(call, 0), &y = tensor(call, 1);
  const voltaic_status status = plan_slice(call, "slice", x, y, plan);
  if (status != VOLTAIC_OK || y.elements == 0) return status;
  return copy_runs(call, static_cast<const char*>(x.data) + plan.start, plan.stride, y.data,
                   plan.run, plan.runs, plan.run);
}

voltaic_status slice_assign(const voltaic_call* call) {
  Slice plan;
  const voltaic_tensor &x = tensor(call, 0), &y = tensor(call, 1);
  const voltaic_status status = plan_slice(call, "slice_assign", y, x, plan);
  if (status != VOLTAIC_OK || x.elements == 0) return status;
  return copy_runs(call, x.data, plan.run, static_cast<char*>(y.data) + plan.start, plan.stride,
                   plan.runs, plan.run);
}

}  // namespace

VOLTAIC_CUDA_KERNELS(rows, {"gather_rows", gather}, {"scatter_add_rows", scatter_add_rows},
                     {"permute", permute}, {"slice", slice}, {"slice_assign", slice_assign})

}  // namespace voltaic
