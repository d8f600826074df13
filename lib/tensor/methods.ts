/** The general ops as methods of Tensor; each is the function of the same name. */
import type { DType, Shape } from '../runtime/index.js'
import * as activation from './activation.js'
import type { Operand } from './elementwise.js'
import * as elementwise from './elementwise.js'
import { matmul } from './gemm.js'
import * as reduction from './reduction.js'
import * as rows from './rows.js'
import * as soft from './softmax.js'
import { Tensor } from './tensor.js'

declare module './tensor.js' {
  interface Tensor {
    add(other: Operand): Tensor
    sub(other: Operand): Tensor
    mul(other: Operand): Tensor
    div(other: Operand): Tensor
    pow(exponent: Operand): Tensor
    maximum(other: Operand): Tensor
    minimum(other: Operand): Tensor
    equal(other: Operand): Tensor
    notEqual(other: Operand): Tensor
    less(other: Operand): Tensor
    lessEqual(other: Operand): Tensor
    greater(other: Operand): Tensor
    greaterEqual(other: Operand): Tensor
    neg(): Tensor
    abs(): Tensor
    exp(): Tensor
    log(): Tensor
    sqrt(): Tensor
    /** In another dtype. */
    to(dtype: DType): Tensor
    clone(): Tensor
    broadcastTo(shape: Shape): Tensor
    matmul(other: Tensor): Tensor
    sum(axes?: number | readonly number[], keepDims?: boolean): Tensor
    mean(axes?: number | readonly number[], keepDims?: boolean): Tensor
    max(axes?: number | readonly number[], keepDims?: boolean): Tensor
    argmax(axis?: number): Tensor
    reshape(shape: Shape): Tensor
    /** The same as `reshape`: tensors are contiguous. */
    view(shape: Shape): Tensor
    flatten(start?: number, end?: number): Tensor
    squeeze(axis?: number): Tensor
    unsqueeze(axis: number): Tensor
    permute(axes: readonly number[]): Tensor
    transpose(first?: number, second?: number): Tensor
    narrow(axis: number, start: number, length: number): Tensor
    slice(...ranges: readonly (rows.Range | null)[]): Tensor
    indexSelect(index: Tensor, axis?: number): Tensor
    softmax(axis?: number): Tensor
    logSoftmax(axis?: number): Tensor
    gelu(): Tensor
    geluTanh(): Tensor
    relu(): Tensor
    tanh(): Tensor
    sigmoid(): Tensor
  }
}

function reductionOptions(
  axes: number | readonly number[] | undefined,
  keepDims = false,
): reduction.ReductionOptions {
  return { axes, keepDims }
}

Object.assign(Tensor.prototype, {
  add(this: Tensor, other: Operand) {
    return elementwise.add(this, other)
  },
  sub(this: Tensor, other: Operand) {
    return elementwise.sub(this, other)
  },
  mul(this: Tensor, other: Operand) {
    return elementwise.mul(this, other)
  },
  div(this: Tensor, other: Operand) {
    return elementwise.div(this, other)
  },
  pow(this: Tensor, other: Operand) {
    return elementwise.pow(this, other)
  },
  maximum(this: Tensor, other: Operand) {
    return elementwise.maximum(this, other)
  },
  minimum(this: Tensor, other: Operand) {
    return elementwise.minimum(this, other)
  },
  equal(this: Tensor, other: Operand) {
    return elementwise.equal(this, other)
  },
  notEqual(this: Tensor, other: Operand) {
    return elementwise.notEqual(this, other)
  },
  less(this: Tensor, other: Operand) {
    return elementwise.less(this, other)
  },
  lessEqual(this: Tensor, other: Operand) {
    return elementwise.lessEqual(this, other)
  },
  greater(this: Tensor, other: Operand) {
    return elementwise.greater(this, other)
  },
  greaterEqual(this: Tensor, other: Operand) {
    return elementwise.greaterEqual(this, other)
  },
  neg(this: Tensor) {
    return elementwise.neg(this)
  },
  abs(this: Tensor) {
    return elementwise.abs(this)
  },
  exp(this: Tensor) {
    return elementwise.exp(this)
  },
  log(this: Tensor) {
    return elementwise.log(this)
  },
  sqrt(this: Tensor) {
    return elementwise.sqrt(this)
  },
  clone(this: Tensor) {
    return elementwise.clone(this)
  },
  to(this: Tensor, dtype: DType) {
    return elementwise.cast(this, dtype)
  },
  broadcastTo(this: Tensor, shape: Shape) {
    return elementwise.broadcastTo(this, shape)
  },
  matmul(this: Tensor, other: Tensor) {
    return matmul(this, other)
  },
  sum(this: Tensor, axes?: number | readonly number[], keepDims?: boolean) {
    return reduction.sum(this, reductionOptions(axes, keepDims))
  },
  mean(this: Tensor, axes?: number | readonly number[], keepDims?: boolean) {
    return reduction.mean(this, reductionOptions(axes, keepDims))
  },
  max(this: Tensor, axes?: number | readonly number[], keepDims?: boolean) {
    return reduction.max(this, reductionOptions(axes, keepDims))
  },
  argmax(this: Tensor, axis?: number) {
    return reduction.argmax(this, axis)
  },
  reshape(this: Tensor, shape: Shape) {
    return rows.reshape(this, shape)
  },
  view(this: Tensor, shape: Shape) {
    return rows.reshape(this, shape)
  },
  flatten(this: Tensor, start?: number, end?: number) {
    return rows.flatten(this, start, end)
  },
  squeeze(this: Tensor, axis?: number) {
    return rows.squeeze(this, axis)
  },
  unsqueeze(this: Tensor, axis: number) {
    return rows.unsqueeze(this, axis)
  },
  permute(this: Tensor, axes: readonly number[]) {
    return rows.permute(this, axes)
  },
  transpose(this: Tensor, first?: number, second?: number) {
    return rows.transpose(this, first, second)
  },
  narrow(this: Tensor, axis: number, start: number, length: number) {
    return rows.narrow(this, axis, start, length)
  },
  slice(this: Tensor, ...ranges: readonly (rows.Range | null)[]) {
    return rows.slice(this, ...ranges)
  },
  indexSelect(this: Tensor, index: Tensor, axis?: number) {
    return rows.indexSelect(this, index, axis)
  },
  softmax(this: Tensor, axis?: number) {
    return soft.softmax(this, axis)
  },
  logSoftmax(this: Tensor, axis?: number) {
    return soft.logSoftmax(this, axis)
  },
  gelu(this: Tensor) {
    return activation.gelu(this)
  },
  geluTanh(this: Tensor) {
    return activation.geluTanh(this)
  },
  relu(this: Tensor) {
    return activation.relu(this)
  },
  tanh(this: Tensor) {
    return activation.tanh(this)
  },
  sigmoid(this: Tensor) {
    return activation.sigmoid(this)
  },
})
