import { screen } from '@testing-library/react'
import { beforeEach, expect, test } from 'vitest'
import { FakeApi, problem } from '~/testing/fakeApi'
import { openApp } from '~/testing/openApp'

let api: FakeApi

beforeEach(() => {
  api = FakeApi.install()
  api.addAccount('ada@example.com', 'a long enough password', { name: 'Ada', token: 'a-token' })
})

const NEW = 'another long password'

test('who forgot the password asks for a link, with the email taken along', async () => {
  const user = openApp('/signin')
  await user.type(screen.getByLabelText('Email'), 'ada@example.com')
  await user.click(screen.getByRole('link', { name: 'Forgotten your password?' }))
  expect(screen.getByLabelText('Email')).toHaveValue('ada@example.com')

  await user.click(screen.getByRole('button', { name: 'Send the link' }))

  expect(await screen.findByText(/has an account, a mail is on its way/)).toBeVisible()
  expect(api.count('POST /api/auth/password/forgotten')).toBe(1)
})

async function choose(user: ReturnType<typeof openApp>, password = NEW) {
  await user.type(screen.getByLabelText('New password'), password)
  await user.click(screen.getByRole('button', { name: 'Save the password' }))
}

test('the link in the mail leads to a new password, and that to sign in', async () => {
  const user = openApp('/reset#token=a-token')

  await choose(user)

  expect(await screen.findByText('Your password is changed. Sign in with the new one.')).toBeVisible()
  expect(screen.getByLabelText('Email')).toHaveValue('ada@example.com')
  expect(api.accounts.get('ada@example.com')?.password).toBe(NEW)
})

test('who was signed in here while choosing a new password signs in again', async () => {
  api.rememberSession('ada@example.com')
  const user = openApp('/reset#token=a-token')

  await choose(user)

  expect(await screen.findByRole('heading', { name: 'Sign in' })).toBeVisible()
  expect(screen.getByText('Your password is changed. Sign in with the new one.')).toBeVisible()
})

test('a link that was used offers another', async () => {
  const user = openApp('/reset#token=used')

  await choose(user)

  expect(await screen.findByText(/This link is no longer valid/)).toBeVisible()
  expect(screen.getByRole('button', { name: 'Send the link' })).toBeVisible()
})

test('a password that is too common is said at its field, and the link still works', async () => {
  const errors = [{ field: 'password', message: 'This password is among the first that are guessed.' }]
  api.failNext('POST /api/auth/password/reset', problem(422, 'invalid', {}, { errors }))
  const user = openApp('/reset#token=a-token')
  await choose(user, 'password1234')
  await screen.findByText(/among the first that are guessed/)
  expect(screen.getByLabelText('New password')).toHaveAccessibleDescription(/among the first that are guessed/)

  await user.clear(screen.getByLabelText('New password'))
  await choose(user)

  expect(await screen.findByText(/Your password is changed/)).toBeVisible()
})

test('the password is changed from the profile', async () => {
  api.rememberSession('ada@example.com')
  const user = openApp('/profile')
  await user.click(await screen.findByRole('link', { name: 'Change your password' }))
  await user.type(screen.getByLabelText('Current password'), 'not my password')
  await user.type(screen.getByLabelText('New password'), NEW)

  await user.click(screen.getByRole('button', { name: 'Change password' }))

  await screen.findByText('The current password is not right.')
  expect(screen.getByLabelText('Current password')).toHaveFocus()
  expect(screen.getByLabelText('New password')).toHaveValue(NEW)

  await user.clear(screen.getByLabelText('Current password'))
  await user.type(screen.getByLabelText('Current password'), 'a long enough password')
  await user.click(screen.getByRole('button', { name: 'Change password' }))

  expect(await screen.findByText(/Other devices are signed out/)).toBeVisible()
  expect(api.accounts.get('ada@example.com')?.password).toBe(NEW)
})

test('a stranger is asked to sign in before changing a password', async () => {
  openApp('/password')

  expect(await screen.findByText('Please sign in to see this page.')).toBeVisible()
})
