/**
 * Scalars for TensorBoard: an event file of TFRecords, each an Event message.
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
import { bytesField, doubleField, floatField, integerField } from '../formats/protobuf.js'
import { VoltaicError } from '../runtime/errors.js'
import { ioError } from '../runtime/mapped-file.js'
import { openAppendFile } from './append-file.js'

const ownFileName = /^events\.out\.tfevents\.\d+\.voltaic$/

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
  return Buffer.concat([doubleField(1, wallTime), bytesField(3, 'brain.Event:2')])
}

function scalarsEvent(wallTime: number, step: number, scalars: Readonly<Record<string, number>>): Buffer {
  const values = Object.entries(scalars).map(([tag, value]) =>
    bytesField(1, bytesField(1, tag), floatField(2, value)),
  )
  return Buffer.concat([doubleField(1, wallTime), integerField(2, step), bytesField(5, ...values)])
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
