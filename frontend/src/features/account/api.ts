import { type Answer, type Body, call } from '~/lib/http'

export type Registered = Answer<'post', '/api/auth/register'>

export function register(registration: Body<'post', '/api/auth/register'>): Promise<Registered> {
  return call('post', '/api/auth/register', registration)
}

export function sendVerificationMail(email: string) {
  return call('post', '/api/auth/verification', { email })
}

const verifications = new Map<string, ReturnType<typeof verify>>()

/** The same answer for the same token, however often the page is drawn: the token works once. */
export function verifyOnce(token: string) {
  const earlier = verifications.get(token)
  if (earlier !== undefined) return earlier
  const verification = verify(token)
  verifications.set(token, verification)
  verification.catch(() => verifications.delete(token))
  return verification
}

function verify(token: string) {
  return call('post', '/api/auth/verify', { token })
}

export function signIn(credentials: Body<'post', '/api/auth/login'>): Promise<Answer<'post', '/api/auth/login'>> {
  return call('post', '/api/auth/login', credentials)
}

export function signOut() {
  return call('post', '/api/auth/logout')
}
