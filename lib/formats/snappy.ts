/**
 * Snappy's block format, unpacked: a varint with the length, then literals and copies of what came before
 * (github.com/google/snappy, format_description.txt). LevelDB tables pack their blocks with it.
 */

/**
 * Unpacks a block, or gives undefined when it is damaged or longer than `most` bytes.
 * The length is known before anything is written, so a block cannot unpack to more than it says.
 */
export function unpackSnappy(packed: Uint8Array, most: number): Uint8Array | undefined {
  let at = 0
  let length = 0
  for (let shift = 0; ; shift += 7) {
    const byte = packed[at++]
    if (byte === undefined || shift > 28) return undefined
    length += (byte & 0x7f) * 2 ** shift
    if (byte < 0x80) break
  }
  if (length > most) return undefined
  const result = new Uint8Array(length)
  let to = 0
  while (at < packed.length) {
    const tag = packed[at++] as number
    const isLiteral = (tag & 3) === 0
    // What follows the tag: the length of a long literal, or the distance of a copy.
    const extra = isLiteral ? Math.max(0, (tag >> 2) - 59) : ([0, 1, 2, 4][tag & 3] as number)
    if (at + extra > packed.length) return undefined
    let number = 0
    for (let i = extra - 1; i >= 0; i--) number = number * 256 + (packed[at + i] as number)
    at += extra
    if (isLiteral) {
      const count = (extra === 0 ? tag >> 2 : number) + 1
      if (count > packed.length - at || count > length - to) return undefined
      result.set(packed.subarray(at, at + count), to)
      at += count
      to += count
    } else {
      const short = (tag & 3) === 1
      const count = short ? ((tag >> 2) & 7) + 4 : (tag >> 2) + 1
      const distance = short ? ((tag >> 5) << 8) | number : number
      if (distance === 0 || distance > to || count > length - to) return undefined
      // One by one: a copy may reach into what it writes itself.
      for (let i = 0; i < count; i++, to++) result[to] = result[to - distance] as number
    }
  }
  return to === length ? result : undefined
}
