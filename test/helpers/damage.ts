/** Damaged files for fuzz tests: bytes of a good file changed, left out, repeated or cut off. */
import fc from 'fast-check'
import { VoltaicError } from '../../dist/runtime/errors.js'

export type Change = (bytes: Buffer) => Buffer

/** Bytes that lengths, counts and opcodes are most sensitive to, and any others. */
const byte = fc.oneof(fc.constantFrom(0, 1, 0x28, 0x2e, 0x7f, 0x80, 0xff), fc.nat(255))
const place = fc.double({ min: 0, max: 1, noNaN: true })
const at = (bytes: Buffer, where: number): number => Math.floor(where * bytes.length)

const change: fc.Arbitrary<Change> = fc.oneof(
  fc.tuple(place, fc.array(byte, { minLength: 1, maxLength: 8 })).map(
    ([where, values]): Change =>
      (bytes) => {
        const copy = Buffer.from(bytes)
        copy.set(values.slice(0, copy.length - at(bytes, where)), at(bytes, where))
        return copy
      },
  ),
  fc.tuple(place, place).map(
    ([from, length]): Change =>
      (bytes) => {
        const start = at(bytes, from)
        return Buffer.concat([bytes.subarray(0, start), bytes.subarray(start + Math.ceil(length * 40))])
      },
  ),
  fc.tuple(place, place, place).map(
    ([from, length, to]): Change =>
      (bytes) => {
        const piece = bytes.subarray(at(bytes, from), at(bytes, from) + Math.ceil(length * 100))
        return Buffer.concat([bytes.subarray(0, at(bytes, to)), piece, bytes.subarray(at(bytes, to))])
      },
  ),
  place.map(
    (where): Change =>
      (bytes) =>
        bytes.subarray(0, at(bytes, where)),
  ),
)
const changes: fc.Arbitrary<Change> = fc
  .array(change, { minLength: 1, maxLength: 4 })
  .map((list) => (bytes) => list.reduce((result, next) => next(result), bytes))

const allowed: readonly string[] = ['ERR_FORMAT', 'ERR_IO']

/** Whether an error is one that damage may cause; throws it when it is not. */
function requireAllowed(error: unknown, codes: readonly string[]): void {
  if (!(error instanceof VoltaicError) || ![...allowed, ...codes].includes(error.code)) throw error
}

/** The same cases each time; a failure prints how to see it again. */
const settings = (numRuns: number) => ({ numRuns, seed: 1, interruptAfterTimeLimit: 10_000 })

/** Runs `read` on changed files. `codes`: what it may throw besides. */
export function survives(read: (change: Change) => void, runs: number, codes: readonly string[] = []): void {
  const property = fc.property(changes, (damage) => {
    try {
      read(damage)
    } catch (error) {
      requireAllowed(error, codes)
    }
  })
  fc.assert(property, settings(runs))
}

/** As `survives`, for readers that return promises. */
export async function survivesAsync(
  read: (change: Change) => Promise<unknown>,
  runs: number,
  codes: readonly string[] = [],
): Promise<void> {
  const property = fc.asyncProperty(changes, async (damage) => {
    await read(damage).catch((error: unknown) => requireAllowed(error, codes))
  })
  await fc.assert(property, settings(runs))
}
