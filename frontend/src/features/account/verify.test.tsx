import { screen } from '@testing-library/react'
import { beforeEach, expect, test } from 'vitest'
import { FakeApi } from '~/testing/fakeApi'
import { openApp } from '~/testing/openApp'

let api: FakeApi

beforeEach(() => {
  api = FakeApi.install()
})

test('the link in the mail verifies the address and leads to sign in with it', async () => {
  api.addAccount('ada@example.com', 'a long enough password', { verified: false, token: 'first-token' })

  const user = openApp('/verify#token=first-token')

  await screen.findByRole('heading', { name: 'Your email is verified' })
  expect(api.count('POST /api/auth/verify')).toBe(1)

  await user.click(screen.getByRole('link', { name: 'Continue to sign in' }))

  expect(screen.getByLabelText('Email')).toHaveValue('ada@example.com')
})

test('a link that is no longer valid offers a new one', async () => {
  const user = openApp('/verify#token=old-token')
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

test('a verification that met a broken network can be tried again', async () => {
  api.addAccount('bob@example.com', 'a long enough password', { verified: false, token: 'second-token' })
  api.failNext('POST /api/auth/verify', new TypeError('fetch failed'))
  const user = openApp('/verify#token=second-token')
  expect(await screen.findByRole('alert')).toHaveTextContent('We could not reach Berth.')

  await user.click(screen.getByRole('button', { name: 'Try again' }))

  expect(await screen.findByRole('heading', { name: 'Your email is verified' })).toBeVisible()
})
