import { expect, test } from 'vitest'
import { FakeApi, problem } from '~/testing/fakeApi'
import { call } from './http'
import { sentenceFor } from './problems'

async function sentenceAfter(answer: Response | Error) {
  FakeApi.install().failNext('POST /api/auth/logout', answer)
  return call('post', '/api/auth/logout').then(() => 'no failure', sentenceFor)
}

test('Retry-After may be a date', async () => {
  const inFiveMinutes = new Date(Date.now() + 299_500).toUTCString()
  const answer = problem(429, 'rate_limited', { 'Retry-After': inFiveMinutes })
  expect(await sentenceAfter(answer)).toBe('Too many attempts. Please try again in 5 minutes.')
})

test('a Retry-After that makes no sense is left out', async () => {
  const answer = problem(429, 'rate_limited', { 'Retry-After': 'soon' })
  expect(await sentenceAfter(answer)).toBe('Too many attempts. Please try again in a moment.')
})

test('no answer in time and no answer at all are told apart', async () => {
  expect(await sentenceAfter(new DOMException('', 'TimeoutError'))).toMatch('did not answer in time')
  expect(await sentenceAfter(new TypeError('fetch failed'))).toMatch('could not reach')
})

test('a problem of an unknown kind is told in the words of the server', async () => {
  const answer = problem(422, 'moon_phase', {}, { detail: 'The moon is too full.' })
  expect(await sentenceAfter(answer)).toBe('The moon is too full.')
})
