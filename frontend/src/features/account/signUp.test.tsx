import { screen } from '@testing-library/react'
import { beforeEach, expect, test } from 'vitest'
import { FakeApi, problem } from '~/testing/fakeApi'
import { openApp } from '~/testing/openApp'

let api: FakeApi

beforeEach(() => {
  api = FakeApi.install()
})

async function fillIn(user: ReturnType<typeof openApp>, email: string, password: string) {
  await user.type(screen.getByLabelText('Email'), email)
  await user.type(screen.getByLabelText('Password'), password)
}

const create = () => screen.getByRole('button', { name: 'Create account' })

test('who signs up is told where the mail went and can ask for it again', async () => {
  const user = openApp('/signup')
  await user.type(screen.getByLabelText('Name (optional)'), 'Ada Lovelace')
  await fillIn(user, ' ada@example.com ', 'a long enough password')

  await user.click(create())

  const heading = await screen.findByRole('heading', { name: 'Check your mail' })
  expect(heading).toHaveFocus()
  expect(screen.getByText('ada@example.com')).toBeVisible()
  expect(api.accounts.get('ada@example.com')).toMatchObject({ name: 'Ada Lovelace', verified: false })

  await user.click(screen.getByRole('button', { name: 'Send the mail again' }))

  expect(await screen.findByText(/a new mail is on its way/)).toBeVisible()
  expect(api.count('POST /api/auth/verification')).toBe(1)
})

test('an address with an account gets the same answer, and a way to sign in', async () => {
  api.addAccount('ada@example.com', 'her own password')
  const user = openApp('/signup')
  await fillIn(user, 'ada@example.com', 'a long enough password')

  await user.click(create())

  await screen.findByRole('heading', { name: 'Check your mail' })
  await user.click(screen.getByRole('link', { name: 'choose a new password' }))

  expect(screen.getByLabelText('Email')).toHaveValue('ada@example.com')
})

test('who has an account takes the email along to sign in', async () => {
  const user = openApp('/signup')
  await user.type(screen.getByLabelText('Email'), 'ada@example.com')

  await user.click(screen.getByRole('link', { name: 'Sign in instead' }))

  expect(screen.getByLabelText('Email')).toHaveValue('ada@example.com')
})

test('mistakes are said at their fields before anything is sent, and the first one takes the focus', async () => {
  const user = openApp('/signup')
  await fillIn(user, 'ada', 'too short')

  await user.click(create())

  expect(screen.getByLabelText('Email')).toHaveFocus()
  expect(screen.getByLabelText('Email')).toHaveAccessibleDescription(/not an email address/)
  expect(screen.getByLabelText('Password')).toHaveAccessibleDescription(/at least 12 characters/)
  expect(api.requests).toEqual([])
})

test('correcting one field does not move the focus to another', async () => {
  const user = openApp('/signup')
  await user.click(create())

  await user.type(screen.getByLabelText('Password'), 'a long')

  expect(screen.getByLabelText('Password')).toHaveValue('a long')
  expect(screen.getByLabelText('Password')).not.toHaveAccessibleDescription(/Choose a password/)
})

test('a double click registers once', async () => {
  const answer = api.holdNext('POST /api/auth/register', Response.json({ status: 'accepted', email: 'ada@example.com' }, { status: 202 }))
  const user = openApp('/signup')
  await fillIn(user, 'ada@example.com', 'a long enough password')

  await user.dblClick(create())
  await user.click(screen.getByRole('button', { name: 'Creating account…' }))
  answer()

  await screen.findByRole('heading', { name: 'Check your mail' })
  expect(api.count('POST /api/auth/register')).toBe(1)
})

test('what the server finds wrong with a field is said at that field', async () => {
  const errors = [{ field: 'password', message: 'This password is too common.' }]
  api.failNext('POST /api/auth/register', problem(422, 'invalid', {}, { errors }))
  const user = openApp('/signup')
  await fillIn(user, 'ada@example.com', 'password1234')

  await user.click(create())

  await screen.findByText('This password is too common.')
  expect(screen.getByLabelText('Password')).toHaveAccessibleDescription(/This password is too common/)
})

test('too many attempts are answered with the time to wait', async () => {
  api.failNext('POST /api/auth/register', problem(429, 'rate_limited', { 'Retry-After': '30' }))
  const user = openApp('/signup')
  await fillIn(user, 'ada@example.com', 'a long enough password')

  await user.click(create())

  expect(await screen.findByRole('alert')).toHaveTextContent('Too many attempts. Please try again in 30 seconds.')
  expect(screen.getByLabelText('Email')).toHaveValue('ada@example.com')
})
