/**
 * Scalars for TensorBoard: an event file of TFRecords, each an Event message written by hand.
 *
 *   record   u64 length, u32 masked CRC-32C of those 8 bytes, the message, u32 masked CRC-32C of the message
 *   Event    1: wall time (double, seconds), 2: step (varint), 3: file version (string, first record only), 5: Summary
 *   Summary  1: Value, repeated;  Value  1: tag (string), 2: simple value (float)
 *
 * The bytes depend on the clock only through `now`, which tests and reproducible runs may replace.
 */
import { readdirSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import { maskedCrc32c } from '../formats/crc32c.js'
import { VoltaicError } from '../runtime/errors.js'
import { ioError } from '../runtime/mapped-file.js'
import { openAppendFile } from './append-file.js'

const varintType = 0
const doubleType = 1
const bytesType = 2
const floatType = 5

const ownFileName = /^events\.out\.tfevents\.\d+\.voltaic$/

function varint(value: number): Buffer {
  const bytes: number[] = []
  let rest = value
  while (rest >= 0x80) {
    bytes.push((rest % 0x80) | 0x80)
    rest = Math.floor(rest / 0x80)
  }
  bytes.push(rest)
  return Buffer.from(bytes)
}

const key = (field: number, type: number): Buffer => varint((field << 3) | type)

function double(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeDoubleLE(value)
  return Buffer.concat([key(field, doubleType), bytes])
}

function float(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeFloatLE(value)
  return Buffer.concat([key(field, floatType), bytes])
}

function nested(field: number, content: Uint8Array): Buffer {
  return Buffer.concat([key(field, bytesType), varint(content.byteLength), content])
}

/** Frames a message as a TFRecord. */
export function tfRecord(message: Uint8Array): Buffer {
  const record = Buffer.alloc(12 + message.byteLength + 4)
  record.writeBigUInt64LE(BigInt(message.byteLength), 0)
  record.writeUInt32LE(maskedCrc32c(record.subarray(0, 8)), 8)
  record.set(message, 12)
  record.writeUInt32LE(maskedCrc32c(message), 12 + message.byteLength)
  return record
}

function firstEvent(wallTime: number): Buffer {
  return Buffer.concat([double(1, wallTime), nested(3, Buffer.from('brain.Event:2'))])
}

function scalarsEvent(wallTime: number, step: number, scalars: Readonly<Record<string, number>>): Buffer {
  const values = Object.entries(scalars).map(([tag, value]) =>
    nested(1, Buffer.concat([nested(1, Buffer.from(tag)), float(2, value)])),
  )
  return Buffer.concat([
    double(1, wallTime),
    key(2, varintType),
    varint(step),
    nested(5, Buffer.concat(values)),
  ])
}

export interface EventLogOptions {
  /** Where a checkpoint left off: the log's `fileName` and `position`. Without it, earlier event files of ours in the folder go. */
  readonly resume?: { readonly fileName: string; readonly position: number }
  /** Seconds since 1970. Default: the machine's clock. */
  readonly now?: () => number
}

export interface EventLog {
  /** `events.out.tfevents.SECONDS.voltaic`: what a checkpoint records, with `position`. */
  readonly fileName: string
  /** Bytes written so far. */
  readonly position: number
  /** Writes one event with the given tags and values. */
  scalars(step: number, values: Readonly<Record<string, number>>): void
  /** Resolves when all events so far would survive a power cut. */
  sync(): Promise<void>
  close(): void
}

function removeEarlier(folder: string): void {
  try {
    for (const name of readdirSync(folder)) if (ownFileName.test(name)) rmSync(join(folder, name))
  } catch (cause) {
    throw ioError('remove event files in', folder, cause)
  }
}

/**
 * Opens the event file of a run, in a folder that must exist. After a resume, what a killed run wrote past its checkpoint is gone, so
 * that no scalar stands twice.
 * @throws ERR_IO when it cannot be written; ERR_FORMAT when events that the checkpoint counts on are missing
 */
export function openEventLog(folder: string, options: EventLogOptions = {}): EventLog {
  const { resume, now = (): number => Date.now() / 1000 } = options
  if (resume !== undefined && !ownFileName.test(resume.fileName)) {
    throw new VoltaicError(
      'ERR_FORMAT',
      `${folder}: the checkpoint names the event file ${JSON.stringify(basename(resume.fileName))}; ` +
        'expected events.out.tfevents.SECONDS.voltaic',
    )
  }
  if (resume === undefined) removeEarlier(folder)
  const seconds = String(Math.floor(now())).padStart(10, '0')
  const fileName = resume?.fileName ?? `events.out.tfevents.${seconds}.voltaic`
  const file = openAppendFile(join(folder, fileName))
  try {
    if (resume !== undefined) file.truncateTo(resume.position)
    if (file.position === 0) file.append(tfRecord(firstEvent(now())))
  } catch (error) {
    file.close()
    throw error
  }
  return {
    fileName,
    get position(): number {
      return file.position
    },
    scalars(step, values): void {
      if (!Number.isSafeInteger(step) || step < 0) {
        throw new VoltaicError(
          'ERR_ARGUMENT',
          `${file.path}: step is ${step}; expected a whole number, 0 or more`,
        )
      }
      file.append(tfRecord(scalarsEvent(now(), step, values)))
    },
    sync: file.sync,
    close: file.close,
  }
}
