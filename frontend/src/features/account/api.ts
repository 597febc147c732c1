import { type Answer, type Body, call } from '~/lib/http'
import type { Session } from '~/lib/session'

export type Registered = Answer<'post', '/api/auth/register'>

export function register(registration: Body<'post', '/api/auth/register'>): Promise<Registered> {
  return call('post', '/api/auth/register', registration)
}

export function sendVerificationMail(email: string) {
  return call('post', '/api/auth/verification', { email })
}

export function verify(token: string, password: string) {
  return call('post', '/api/auth/verify', { token, password })
}

export function signIn(credentials: Body<'post', '/api/auth/login'>): Promise<Answer<'post', '/api/auth/login'>> {
  return call('post', '/api/auth/login', credentials)
}

export function signOut() {
  return call('post', '/api/auth/logout')
}

export function sendResetMail(email: string) {
  return call('post', '/api/auth/password/forgotten', { email })
}

export function resetPassword(token: string, password: string) {
  return call('post', '/api/auth/password/reset', { token, password })
}

export function changePassword(session: Session, change: Body<'post', '/api/auth/password/change'>) {
  return session.call('post', '/api/auth/password/change', change)
}
