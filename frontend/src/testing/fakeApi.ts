import { vi } from 'vitest'

interface Account {
  password: string
  name: string
  bio: string
  verified: boolean
  /** Of the last verification mail. */
  token: string
}

type Json = Record<string, string>

/** The services as the page sees them, kept in memory: what stands behind `fetch` in tests. */
export class FakeApi {
  /** Everything asked so far, as "POST /api/auth/login". */
  readonly requests: string[] = []
  readonly accounts = new Map<string, Account>()
  /** Who the refresh cookie belongs to. */
  private cookieOf: string | undefined
  private validTokens = new Map<string, string>()
  private issued = 0
  private readonly faults: { request: string; answer: () => Promise<Response> }[] = []

  /** Put a fake behind this test's `fetch`. */
  static install(): FakeApi {
    const api = new FakeApi()
    vi.stubGlobal('fetch', (path: string, init: RequestInit) => api.answer(path, init))
    return api
  }

  addAccount(email: string, password: string, details: Partial<Account> = {}) {
    this.accounts.set(email, { password, name: '', bio: '', verified: true, token: `token-of-${email}`, ...details })
  }

  /** As after a sign-in before this page load. */
  rememberSession(email: string) {
    this.cookieOf = email
    localStorage.setItem('berth.session', 'earlier')
  }

  expireAccessTokens() {
    this.validTokens.clear()
  }

  revokeSessions() {
    this.cookieOf = undefined
    this.expireAccessTokens()
  }

  /** Answer the next such request with this response, or with none where it is an Error. */
  failNext(request: string, answer: Response | Error) {
    this.faults.push({
      request,
      answer: () => (answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer)),
    })
  }

  /** Keep the next such request waiting. Returns how to answer it with a success. */
  holdNext(request: string, success: Response): () => void {
    let release = (): void => {
      throw new Error(`${request} was not asked yet`)
    }
    const answer = () =>
      new Promise<Response>((resolve) => {
        release = () => {
          resolve(success)
        }
      })
    this.faults.push({ request, answer })
    return () => {
      release()
    }
  }

  count(request: string): number {
    return this.requests.filter((made) => made === request).length
  }

  private answer(path: string, init: RequestInit): Promise<Response> {
    const request = `${init.method ?? 'GET'} ${path}`
    this.requests.push(request)
    const fault = this.faults.findIndex((one) => one.request === request)
    if (fault >= 0) {
      const [planned] = this.faults.splice(fault, 1)
      if (planned !== undefined) return planned.answer()
    }
    const body = typeof init.body === 'string' ? (JSON.parse(init.body) as Json) : {}
    const bearer = new Headers(init.headers).get('Authorization')?.replace('Bearer ', '') ?? ''
    return Promise.resolve(this.handle(request, body, bearer))
  }

  private handle(request: string, body: Json, bearer: string): Response {
    const { email = '', password = '', token = '' } = body
    const account = this.accounts.get(email)
    switch (request) {
      case 'POST /api/auth/register':
        if (account === undefined) this.addAccount(email, password, { name: body.name ?? '', verified: false })
        return Response.json({ status: 'accepted', email }, { status: 202 })
      case 'POST /api/auth/verification':
        return new Response(null, { status: 202 })
      case 'POST /api/auth/verify': {
        const [owner, verified] = [...this.accounts].find(([, one]) => one.token === token) ?? []
        if (verified === undefined || owner === undefined) return problem(400, 'token_invalid')
        if (verified.password !== password) return problem(400, 'credentials_invalid')
        verified.verified = true
        return Response.json({ email: owner, verified: true })
      }
      case 'POST /api/auth/login':
        if (account?.password !== password || !account.verified) return problem(401, 'credentials_invalid')
        this.cookieOf = email
        return this.tokensFor(email)
      case 'POST /api/auth/refresh':
        return this.cookieOf === undefined ? problem(401, 'session_revoked') : this.tokensFor(this.cookieOf)
      case 'POST /api/auth/logout':
        this.cookieOf = undefined
        return new Response(null, { status: 204 })
      case 'POST /api/auth/password/forgotten':
        return Response.json({ status: 'accepted' }, { status: 202 })
      case 'POST /api/auth/password/reset': {
        const [owner, forgetful] = [...this.accounts].find(([, one]) => one.token === token) ?? []
        if (forgetful === undefined || owner === undefined) return problem(400, 'token_invalid')
        Object.assign(forgetful, { password, verified: true, token: '' })
        this.revokeSessions()
        return Response.json({ email: owner, verified: true })
      }
      case 'POST /api/auth/password/change': {
        const mine = this.accounts.get(this.validTokens.get(bearer) ?? '')
        if (mine === undefined) return problem(401, 'token_invalid')
        if (mine.password !== body.current) return problem(400, 'credentials_invalid')
        mine.password = body.new ?? ''
        return new Response(null, { status: 204 })
      }
      case 'GET /api/users/me':
      case 'PATCH /api/users/me':
        return this.profile(this.validTokens.get(bearer), body)
      default:
        return problem(404, 'not_found')
    }
  }

  private tokensFor(email: string): Response {
    this.issued += 1
    const token = `access-${String(this.issued)}`
    this.validTokens.set(token, email)
    return Response.json({ access_token: token, token_type: 'bearer', expires_in: 900 })
  }

  private profile(email: string | undefined, change: Json): Response {
    const account = this.accounts.get(email ?? '')
    if (email === undefined || account === undefined) return problem(401, 'token_invalid')
    Object.assign(account, change)
    const { name, bio } = account
    return Response.json({ id: email, email, name, bio, updated_at: '2026-03-01T09:30:00Z' })
  }
}

export function problem(status: number, code: string, headers: Record<string, string> = {}, more: object = {}): Response {
  return new Response(JSON.stringify({ type: 'about:blank', title: code, status, code, request_id: 'req-7', ...more }), {
    status,
    headers: { 'Content-Type': 'application/problem+json', ...headers },
  })
}
