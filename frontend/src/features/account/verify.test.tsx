import { screen } from '@testing-library/react'
import { beforeEach, expect, test } from 'vitest'
import { FakeApi, problem } from '~/testing/fakeApi'
import { openApp } from '~/testing/openApp'

let api: FakeApi

beforeEach(() => {
  api = FakeApi.install()
  api.addAccount('ada@example.com', 'a long enough password', { name: 'Ada', verified: false, token: 'a-token' })
})

async function verify(user: ReturnType<typeof openApp>, password = 'a long enough password') {
  await user.type(screen.getByLabelText('Password'), password)
  await user.click(screen.getByRole('button', { name: 'Verify and sign in' }))
}

test('the link in the mail and the password verify the address and sign in', async () => {
  const user = openApp('/verify#token=a-token')
  expect(api.requests).toEqual([])

  await verify(user)

  expect(await screen.findByText('Your email is verified.')).toBeVisible()
  expect(await screen.findByRole('heading', { name: 'Your profile' })).toHaveFocus()
})

test('another password verifies nothing, and says what to do instead', async () => {
  const user = openApp('/verify#token=a-token')

  await verify(user, 'not the password of it')

  await screen.findByText(/not the password of the sign-up/)
  expect(screen.getByLabelText('Password')).toHaveFocus()
  expect(api.accounts.get('ada@example.com')?.verified).toBe(false)
  expect(screen.getByRole('link', { name: 'Sign up yourself' })).toHaveAttribute('href', '/signup')
  expect(screen.getByRole('link', { name: 'choose a new password' })).toHaveAttribute('href', '/forgotten')
})

test('a link that is no longer valid offers a new one', async () => {
  const user = openApp('/verify#token=old-token')
  await verify(user)
  expect(await screen.findByText(/This link is no longer valid/)).toBeVisible()

  await user.type(screen.getByLabelText('Email'), 'ada@example.com')
  await user.click(screen.getByRole('button', { name: 'Send a new link' }))

  expect(await screen.findByText(/a new mail is on its way/)).toBeVisible()
})

test('without a token the page offers a new link', () => {
  openApp('/verify')
  expect(screen.getByRole('button', { name: 'Send a new link' })).toBeVisible()
  expect(api.requests).toEqual([])
})

test('a verification that met a broken network can be tried again, with the password still there', async () => {
  api.failNext('POST /api/auth/verify', new TypeError('fetch failed'))
  const user = openApp('/verify#token=a-token')
  await verify(user)
  expect(await screen.findByRole('alert')).toHaveTextContent('We could not reach Berth.')

  await user.click(screen.getByRole('button', { name: 'Verify and sign in' }))

  expect(await screen.findByText('Your email is verified.')).toBeVisible()
})

test('who is verified but cannot be signed in just now is led to sign in', async () => {
  api.failNext('POST /api/auth/login', problem(503, 'busy', { 'Retry-After': '2' }))
  const user = openApp('/verify#token=a-token')

  await verify(user)

  expect(await screen.findByText(/You can sign in now/)).toBeVisible()
  expect(screen.getByLabelText('Email')).toHaveValue('ada@example.com')
})
