import type { Answer, Body } from '~/lib/http'
import type { Session } from '~/lib/session'

export type Profile = Answer<'get', '/api/users/me'>
export type ProfileChange = Body<'patch', '/api/users/me'>

export function fetchProfile(session: Session): Promise<Profile> {
  return session.call('get', '/api/users/me')
}

export function changeProfile(session: Session, change: ProfileChange): Promise<Profile> {
  return session.call('patch', '/api/users/me', change)
}
