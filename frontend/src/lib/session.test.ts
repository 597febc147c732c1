import { beforeEach, expect, test } from 'vitest'
import { FakeApi, problem } from '~/testing/fakeApi'
import { Session } from './session'

let api: FakeApi
let session: Session

beforeEach(() => {
  api = FakeApi.install()
  api.addAccount('ada@example.com', 'a long enough password')
  api.rememberSession('ada@example.com')
  session = new Session()
})

test('requests that meet an expired token together renew it once', async () => {
  await session.restore()
  api.expireAccessTokens()

  await Promise.all([1, 2, 3].map(() => session.call('get', '/api/users/me')))

  expect(api.count('POST /api/auth/refresh')).toBe(2)
})

test('a request that fails again after the renewal is not repeated for ever', async () => {
  await session.restore()
  api.failNext('GET /api/users/me', problem(401, 'token_invalid'))
  api.failNext('GET /api/users/me', problem(401, 'token_invalid'))

  await expect(session.call('get', '/api/users/me')).rejects.toMatchObject({ status: 401 })

  expect(api.count('GET /api/users/me')).toBe(2)
})

test('a renewal that arrives after the sign-out does not sign in again', async () => {
  const tokens = Response.json({ access_token: 'late', token_type: 'bearer', expires_in: 900 })
  const answer = api.holdNext('POST /api/auth/refresh', tokens)
  const restoring = session.restore()

  session.end('signed-out')
  answer()
  await restoring

  expect(session.current()).toEqual({ status: 'signed-out', ending: 'signed-out' })
})

test('an outage during a renewal keeps the session', async () => {
  await session.restore()
  api.expireAccessTokens()
  api.failNext('POST /api/auth/refresh', new TypeError('fetch failed'))

  await expect(session.call('get', '/api/users/me')).rejects.toMatchObject({ code: 'network' })

  expect(session.current()).toEqual({ status: 'signed-in' })
})
