import { act, screen } from '@testing-library/react'
import { beforeEach, expect, test } from 'vitest'
import { FakeApi, problem } from '~/testing/fakeApi'
import { openApp } from '~/testing/openApp'

let api: FakeApi

beforeEach(() => {
  api = FakeApi.install()
  api.addAccount('ada@example.com', 'a long enough password', { name: 'Ada' })
})

/** What the browser tells this tab when another one changed the storage. */
function otherTabSets(newValue: string | null) {
  act(() => {
    window.dispatchEvent(new StorageEvent('storage', { key: 'berth.session', newValue }))
  })
}

test('a newcomer is led to sign up or sign in, and nothing is asked of the server', () => {
  openApp('/')

  expect(screen.getByRole('link', { name: 'Create an account' })).toHaveAttribute('href', '/signup')
  expect(screen.getByRole('link', { name: 'I have an account' })).toHaveAttribute('href', '/signin')
  expect(api.requests).toEqual([])
})

test('who signed in earlier is led to the profile', async () => {
  api.rememberSession('ada@example.com')
  const user = openApp('/')

  await user.click(await screen.findByRole('link', { name: 'Open your profile' }))

  expect(await screen.findByText('Ada')).toBeVisible()
  expect(api.count('POST /api/auth/refresh')).toBe(1)
})

test('the profile asks a stranger to sign in', async () => {
  openApp('/profile')

  expect(await screen.findByText('Please sign in to see this page.')).toBeVisible()
  expect(screen.getByRole('heading', { name: 'Sign in' })).toBeVisible()
})

test('a session that ended since the last visit is said', async () => {
  api.rememberSession('ada@example.com')
  api.revokeSessions()

  openApp('/profile')

  expect(await screen.findByText('Your session has ended. Please sign in again.')).toBeVisible()
})

test('an outage while the session is restored does not sign out', async () => {
  api.rememberSession('ada@example.com')
  api.failNext('POST /api/auth/refresh', problem(503, 'unavailable', { 'Retry-After': '5' }))
  const user = openApp('/profile')
  expect(await screen.findByRole('alert')).toHaveTextContent('Please try again in 5 seconds.')

  await user.click(screen.getByRole('button', { name: 'Try again' }))

  expect(await screen.findByText('Ada')).toBeVisible()
})

test('signing out in one tab signs out the other', async () => {
  api.rememberSession('ada@example.com')
  openApp('/profile')
  await screen.findByText('Ada')

  otherTabSets(null)

  expect(await screen.findByText('You signed out in another tab.')).toBeVisible()
})

test('signing in as another person in one tab shows that person in the other', async () => {
  api.addAccount('bob@example.com', 'a long enough password', { name: 'Bob' })
  api.rememberSession('ada@example.com')
  openApp('/profile')
  await screen.findByText('Ada')

  api.rememberSession('bob@example.com')
  otherTabSets('later')

  expect(await screen.findByText('Bob')).toBeVisible()
})

test('an unknown address says so and leads home', async () => {
  const user = openApp('/no/such/page')
  expect(screen.getByRole('heading', { name: 'There is no such page' })).toBeVisible()

  await user.click(screen.getByRole('link', { name: 'Go to the front page' }))

  expect(screen.getByRole('heading', { level: 1 })).toHaveFocus()
  expect(document.title).toBe('A safe berth for your account · Berth')
})

test('the skip link is the first stop of the keyboard', async () => {
  const user = openApp('/')

  await user.tab()

  expect(screen.getByRole('link', { name: 'Skip to the content' })).toHaveAttribute('href', '#content')
})
