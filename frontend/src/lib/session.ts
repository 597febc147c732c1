import { createContext, use, useSyncExternalStore } from 'react'
import { type Answer, ApiError, type Body, call, type Method, type PathWith } from './http'

type Tokens = Answer<'post', '/api/auth/login'>

/** Why nobody is signed in; the sign-in page says it. */
export type Ending = 'never' | 'expired' | 'signed-out' | 'signed-out-elsewhere'

export type SessionState =
  | { status: 'restoring' }
  | { status: 'signed-in' }
  | { status: 'signed-out'; ending: Ending }
  | { status: 'unreachable'; error: unknown }

/** Says to the browser's other tabs, and to the next page load, that a session exists. It is no secret. */
const MARK = 'berth.session'

/**
 * Who is signed in here. The access token stays in this object, out of reach of storage;
 * the refresh token is a cookie that scripts cannot read.
 */
export class Session {
  private state: SessionState = { status: 'restoring' }
  private accessToken: string | undefined
  private refreshing: Promise<string> | undefined
  private readonly listeners = new Set<() => void>()

  readonly current = () => this.state

  readonly subscribe = (listener: () => void) => {
    this.listeners.add(listener)
    return () => {
      this.listeners.delete(listener)
    }
  }

  /** Resume what an earlier page load or another tab began. */
  async restore(): Promise<void> {
    if (!marked()) {
      this.become({ status: 'signed-out', ending: 'never' })
      return
    }
    this.become({ status: 'restoring' })
    try {
      await this.refresh()
    } catch (error) {
      if (this.state.status === 'restoring') this.become({ status: 'unreachable', error })
    }
  }

  /** Follow sign-ins and sign-outs of the browser's other tabs. Returns how to stop. */
  followOtherTabs(): () => void {
    const onStorage = (event: StorageEvent) => {
      if (event.key !== MARK) return
      this.accessToken = undefined
      if (event.newValue !== null) void this.restore()
      else this.become({ status: 'signed-out', ending: 'signed-out-elsewhere' })
    }
    window.addEventListener('storage', onStorage)
    return () => {
      window.removeEventListener('storage', onStorage)
    }
  }

  begin(tokens: Tokens) {
    this.accessToken = tokens.access_token
    mark(crypto.randomUUID())
    this.become({ status: 'signed-in' })
  }

  end(ending: Ending) {
    this.accessToken = undefined
    mark(null)
    this.become({ status: 'signed-out', ending })
  }

  /** Call the API as the signed-in user; an expired access token is renewed once on the way. */
  async call<M extends Method, P extends PathWith<M>>(method: M, path: P, body?: Body<M, P>): Promise<Answer<M, P>> {
    const token = this.accessToken ?? (await this.refresh())
    try {
      return await call(method, path, body, token)
    } catch (error) {
      if (!isUnauthorized(error)) throw error
      // A request beside this one may have brought a newer token meanwhile.
      const newer = this.accessToken
      return call(method, path, body, newer !== undefined && newer !== token ? newer : await this.refresh())
    }
  }

  /** Callers at the same time share one request: each refresh token works once. */
  private refresh(): Promise<string> {
    this.refreshing ??= this.refreshOnce().finally(() => {
      this.refreshing = undefined
    })
    return this.refreshing
  }

  private async refreshOnce(): Promise<string> {
    try {
      const tokens = await oneTabAtATime(() => call('post', '/api/auth/refresh'))
      // Signed out while the answer was under way: it must not sign in again.
      if (this.state.status === 'signed-out') throw new ApiError(401, 'session_revoked')
      this.accessToken = tokens.access_token
      this.become({ status: 'signed-in' })
      return tokens.access_token
    } catch (error) {
      if (isUnauthorized(error) && this.state.status !== 'signed-out') this.end('expired')
      throw error
    }
  }

  private become(state: SessionState) {
    this.state = state
    for (const listener of this.listeners) listener()
  }
}

const SessionContext = createContext<Session | null>(null)
export const SessionProvider = SessionContext.Provider

export function useSession(): Session {
  const session = use(SessionContext)
  if (session === null) throw new Error('useSession outside of SessionProvider')
  return session
}

export function useSessionState(): SessionState {
  const session = useSession()
  return useSyncExternalStore(session.subscribe, session.current)
}

function isUnauthorized(error: unknown): boolean {
  return error instanceof ApiError && error.status === 401
}

/** All tabs share the refresh cookie, so they take turns. Browsers offer locks on HTTPS and localhost only. */
async function oneTabAtATime(work: () => Promise<Tokens>): Promise<Tokens> {
  const locks = navigator.locks as LockManager | null | undefined
  return locks ? locks.request('berth-refresh', work) : work()
}

/** Without a mark nothing is asked of the server. Where storage is blocked, it is always asked. */
function marked(): boolean {
  try {
    return localStorage.getItem(MARK) !== null
  } catch {
    return true
  }
}

function mark(value: string | null) {
  try {
    if (value === null) localStorage.removeItem(MARK)
    else localStorage.setItem(MARK, value)
  } catch {
    // Storage is blocked: this tab works, the others find out at their next request.
  }
}
