import { screen, waitFor } from '@testing-library/react'
import { beforeEach, expect, test } from 'vitest'
import { FakeApi, problem } from '~/testing/fakeApi'
import { openApp } from '~/testing/openApp'

let api: FakeApi

beforeEach(() => {
  api = FakeApi.install()
  api.addAccount('ada@example.com', 'a long enough password', { name: 'Ada' })
})

async function signIn(user: ReturnType<typeof openApp>, password = 'a long enough password') {
  await user.type(screen.getByLabelText('Email'), 'ada@example.com')
  await user.type(screen.getByLabelText('Password'), password)
  await user.click(screen.getByRole('button', { name: 'Sign in' }))
}

test('signing in leads to the profile, with the focus at its heading', async () => {
  const user = openApp('/signin')

  await signIn(user)

  expect(await screen.findByRole('heading', { name: 'Your profile' })).toHaveFocus()
  expect(await screen.findByText('Ada')).toBeVisible()
  expect(document.title).toBe('Your profile · Berth')
})

test('the access token is kept out of storage', async () => {
  const user = openApp('/signin')

  await signIn(user)

  await screen.findByText('Ada')
  expect(JSON.stringify([localStorage, sessionStorage])).not.toContain('access-')
})

test('after a wrong password the email stays and the password field says why', async () => {
  const user = openApp('/signin')

  await signIn(user, 'a wrong password')

  await screen.findByText(/The email or the password is not right/)
  const password = screen.getByLabelText('Password')
  expect(password).toHaveAccessibleDescription(/The email or the password is not right/)
  expect(password).toHaveFocus()
  expect(screen.getByLabelText('Email')).toHaveValue('ada@example.com')
})

test('an unverified address is reminded of the mail, and can have it sent again', async () => {
  api.addAccount('ada@example.com', 'a long enough password', { verified: false })
  const user = openApp('/signin')
  await signIn(user)
  expect(await screen.findByText(/open the link in our mail first/)).toBeVisible()

  await user.click(screen.getByRole('link', { name: 'No mail after signing up?' }))

  expect(screen.getByRole('button', { name: 'Send a new link' })).toBeVisible()
})

test('a busy server is named with the time to wait', async () => {
  api.failNext('POST /api/auth/login', problem(503, 'busy', { 'Retry-After': '2' }))
  const user = openApp('/signin')

  await signIn(user)

  expect(await screen.findByRole('alert')).toHaveTextContent('Berth is busy just now. Please try again in 2 seconds.')
})

test("a proxy's own error page is explained too", async () => {
  api.failNext('POST /api/auth/login', new Response('<h1>Bad Gateway</h1>', { status: 502 }))
  const user = openApp('/signin')

  await signIn(user)

  expect(await screen.findByRole('alert')).toHaveTextContent('Berth is busy just now. Please try again in a moment.')
})

test('the password can be shown, and is hidden again when it is sent', async () => {
  const user = openApp('/signin')
  await user.type(screen.getByLabelText('Password'), 'secret')

  await user.click(screen.getByRole('button', { name: 'Show password' }))
  expect(screen.getByLabelText('Password')).toHaveAttribute('type', 'text')

  await user.click(screen.getByRole('button', { name: 'Sign in' }))
  await waitFor(() => {
    expect(screen.getByLabelText('Password')).toHaveAttribute('type', 'password')
  })
})

test('who is signed in does not see the sign-in form', async () => {
  api.rememberSession('ada@example.com')

  openApp('/signin')

  expect(await screen.findByRole('heading', { name: 'Your profile' })).toBeVisible()
})

test('signing out leads to the sign-in page and ends the session on the server', async () => {
  api.rememberSession('ada@example.com')
  const user = openApp('/profile')

  await user.click(await screen.findByRole('button', { name: 'Sign out' }))

  expect(await screen.findByText('You are signed out.')).toBeVisible()
  expect(screen.getByRole('heading', { name: 'Sign in' })).toHaveFocus()
  expect(api.count('POST /api/auth/logout')).toBe(1)
})

test('a sign-out that did not reach the server does not pretend', async () => {
  api.rememberSession('ada@example.com')
  const user = openApp('/profile')
  api.failNext('POST /api/auth/logout', new TypeError('fetch failed'))

  await user.click(await screen.findByRole('button', { name: 'Sign out' }))

  expect(await screen.findByText(/You are still signed in. We could not reach Berth./)).toBeVisible()
  expect(screen.getByRole('heading', { name: 'Your profile' })).toBeVisible()
})
