import { screen } from '@testing-library/react'
import { beforeEach, expect, test } from 'vitest'
import { FakeApi, problem } from '~/testing/fakeApi'
import { openApp } from '~/testing/openApp'

let api: FakeApi

beforeEach(() => {
  api = FakeApi.install()
  api.addAccount('ada@example.com', 'a long enough password', { name: 'Ada', bio: 'Countess' })
  api.rememberSession('ada@example.com')
})

const editButton = () => screen.findByRole('button', { name: 'Edit profile' })

test('a profile shows what is known', async () => {
  openApp('/profile')

  expect(await screen.findByText('Ada')).toBeVisible()
  expect(screen.getByText('ada@example.com')).toBeVisible()
  expect(screen.getByText('Countess')).toBeVisible()
})

test('changes are saved, confirmed and shown, with the focus back at the button', async () => {
  const user = openApp('/profile')
  await user.click(await editButton())
  const name = screen.getByLabelText('Name (optional)')
  expect(name).toHaveFocus()
  await user.clear(name)
  await user.type(name, 'Ada Lovelace')

  await user.click(screen.getByRole('button', { name: 'Save changes' }))

  expect(await screen.findByText('Your profile is saved.')).toBeVisible()
  expect(screen.getByText('Ada Lovelace')).toBeVisible()
  expect(await editButton()).toHaveFocus()
  expect(api.accounts.get('ada@example.com')).toMatchObject({ name: 'Ada Lovelace', bio: 'Countess' })
})

test('cancelled changes are forgotten', async () => {
  const user = openApp('/profile')
  await user.click(await editButton())
  await user.type(screen.getByLabelText('About you (optional)'), ' of Lovelace')

  await user.click(screen.getByRole('button', { name: 'Cancel' }))

  expect(screen.getByText('Countess')).toBeVisible()
  expect(api.count('PATCH /api/users/me')).toBe(0)
})

test('what was typed stays in the form when saving fails', async () => {
  const user = openApp('/profile')
  await user.click(await editButton())
  await user.type(screen.getByLabelText('About you (optional)'), ' of Lovelace')
  api.failNext('PATCH /api/users/me', problem(500, 'internal'))

  await user.click(screen.getByRole('button', { name: 'Save changes' }))

  expect(await screen.findByRole('alert')).toHaveTextContent('tell us this reference: req-7')
  expect(screen.getByLabelText('About you (optional)')).toHaveValue('Countess of Lovelace')
})

test('a text that is too long is said at its field and stays there', async () => {
  const user = openApp('/profile')
  await user.click(await editButton())
  const about = screen.getByLabelText('About you (optional)')
  await user.clear(about)
  await user.paste('x'.repeat(501))

  await user.click(screen.getByRole('button', { name: 'Save changes' }))

  expect(about).toHaveAccessibleDescription(/501 characters long; at most 500 fit/)
  expect(about).toHaveFocus()
  expect(api.count('PATCH /api/users/me')).toBe(0)
})

test('an access token that expired while the page was open is renewed without a word', async () => {
  const user = openApp('/profile')
  await user.click(await editButton())
  api.expireAccessTokens()

  await user.click(screen.getByRole('button', { name: 'Save changes' }))

  expect(await screen.findByText('Your profile is saved.')).toBeVisible()
})

test('a revoked session leads to the sign-in page, which says so and leads back', async () => {
  const user = openApp('/profile')
  await user.click(await editButton())
  api.revokeSessions()
  await user.click(screen.getByRole('button', { name: 'Save changes' }))
  expect(await screen.findByText('Your session has ended. Please sign in again.')).toBeVisible()

  await user.type(screen.getByLabelText('Email'), 'ada@example.com')
  await user.type(screen.getByLabelText('Password'), 'a long enough password')
  await user.click(screen.getByRole('button', { name: 'Sign in' }))

  expect(await screen.findByRole('heading', { name: 'Your profile' })).toBeVisible()
})

test('a profile that could not be fetched can be asked for again', async () => {
  api.failNext('GET /api/users/me', problem(503, 'unavailable'))
  // React draws twice in development, and both ask.
  api.failNext('GET /api/users/me', problem(503, 'unavailable'))
  const user = openApp('/profile')

  await user.click(await screen.findByRole('button', { name: 'Try again' }))

  expect(await screen.findByText('Ada')).toBeVisible()
})
