/** A hub on loopback: repositories in memory, the protocol's headers, and a second server where large files are. */
import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface ServedFile {
  readonly content: Buffer
  /** Kept on the other server, under its SHA-256. */
  readonly large?: boolean
  /** The store closes the connection after so many bytes, once. */
  breakAfter?: number
  /** What the hub says the hash is, instead of the truth. */
  readonly etag?: string
}

export interface HubServer {
  readonly endpoint: string
  /** By `OWNER/NAME/FILE`. */
  readonly files: Map<string, ServedFile>
  /** `METHOD PATH [RANGE]` of each request, with `+token` where one came. */
  readonly requests: string[]
  commit: string
  /** What every question is answered with instead. */
  failure: { status: number; code?: string } | undefined
  /** Whether the store can go on in the middle. */
  ranges: boolean
  close(): Promise<void>
}

const sha256 = (content: Buffer): string => createHash('sha256').update(content).digest('hex')
const gitHash = (content: Buffer): string =>
  createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex')

async function listen(answer: (request: IncomingMessage, response: ServerResponse) => void): Promise<Server> {
  const server = createServer(answer)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return server
}

const addressOf = (server: Server): string => `http://127.0.0.1:${(server.address() as AddressInfo).port}`

export async function startHub(): Promise<HubServer> {
  const files = new Map<string, ServedFile>()
  const requests: string[] = []
  const note = (where: string, { method, url, headers }: IncomingMessage): void => {
    const range = headers.range === undefined ? '' : ` ${headers.range}`
    requests.push(`${where}${method} ${url}${range}${headers.authorization ? ' +token' : ''}`)
  }
  const send = (request: IncomingMessage, response: ServerResponse, file: ServedFile): void => {
    const start = hub.ranges ? Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0) : 0
    const content = file.content.subarray(start)
    const headers: Record<string, string> = { 'content-length': String(content.length) }
    if (start > 0)
      headers['content-range'] = `bytes ${start}-${file.content.length - 1}/${file.content.length}`
    response.writeHead(start > 0 ? 206 : 200, headers)
    if (request.method === 'HEAD') return void response.end()
    const { breakAfter } = file
    if (breakAfter === undefined) return void response.end(content)
    delete file.breakAfter
    response.write(content.subarray(0, breakAfter), () => setTimeout(() => response.destroy(), 30))
  }
  const store = await listen((request, response) => {
    note('store ', request)
    const file = [...files.values()].find(({ content }) => request.url === `/${sha256(content)}`)
    if (file === undefined) response.writeHead(404).end()
    else send(request, response, file)
  })
  const main = await listen((request, response) => {
    note('', request)
    const [, owner, name, , , file = ''] = (request.url ?? '').split('/')
    const { failure } = hub
    if (failure !== undefined) {
      response
        .writeHead(failure.status, failure.code === undefined ? {} : { 'x-error-code': failure.code })
        .end()
      return
    }
    if (owner === 'old') {
      response.writeHead(307, { location: (request.url ?? '').replace('/old/', '/new/') }).end()
      return
    }
    const served = files.get(`${owner}/${name}/${file}`)
    if (served === undefined) {
      const isKnown = [...files.keys()].some((key) => key.startsWith(`${owner}/${name}/`))
      const headers: Record<string, string> = isKnown
        ? { 'x-error-code': 'EntryNotFound', 'x-repo-commit': hub.commit }
        : { 'x-error-code': 'RepoNotFound' }
      response.writeHead(404, headers).end()
      return
    }
    response.setHeader('x-repo-commit', hub.commit)
    if (served.large) {
      const hash = sha256(served.content)
      response.writeHead(302, {
        location: `${addressOf(store)}/${hash}`,
        'x-linked-etag': `"${served.etag ?? hash}"`,
        'x-linked-size': String(served.content.length),
      })
      response.end()
      return
    }
    response.setHeader('etag', `W/"${served.etag ?? gitHash(served.content)}"`)
    send(request, response, served)
  })
  const hub: HubServer = {
    endpoint: addressOf(main),
    files,
    requests,
    commit: '1'.repeat(40),
    failure: undefined,
    ranges: true,
    async close() {
      for (const server of [main, store]) {
        server.closeAllConnections()
        await new Promise((resolve) => server.close(resolve))
      }
    },
  }
  return hub
}
