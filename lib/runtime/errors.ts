/** Every error that Voltaic throws on purpose, with a code that stays the same between versions. */

export type ErrorCode =
  | 'ERR_SHAPE'
  | 'ERR_DTYPE'
  | 'ERR_DEVICE'
  | 'ERR_OUT_OF_MEMORY'
  | 'ERR_ARGUMENT'
  | 'ERR_DISPOSED'
  | 'ERR_GRADIENT'
  | 'ERR_FORMAT'
  | 'ERR_IO'
  | 'ERR_CONFIG'
  | 'ERR_BACKEND'
  | 'ERR_NOT_FINITE'
  | 'ERR_ABORTED'
  | 'ERR_UNSUPPORTED'

/** An error with a stable `code` and a message that names what failed, what came, what was expected and what to do. */
export class VoltaicError extends Error {
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string, options?: { readonly cause?: unknown }) {
    super(message, options)
    this.name = 'VoltaicError'
    this.code = code
  }
}
