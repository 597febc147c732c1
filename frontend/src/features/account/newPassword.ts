import { lengthOf } from '~/lib/form'

export const MIN_PASSWORD = 12
const MAX_PASSWORD = 128

/** What is wrong with a new password; whether it is too common, the server says. */
export function newPasswordMistake(password: string): string | undefined {
  const length = lengthOf(password)
  if (length < MIN_PASSWORD) return `Choose a password of at least ${String(MIN_PASSWORD)} characters.`
  if (length > MAX_PASSWORD) return `Choose a password of at most ${String(MAX_PASSWORD)} characters.`
}
