/** The server does not tell whether an address has an account, so neither does this. */
export function SentMessage({ email }: { email: string }) {
  return (
    <p>
      If <strong>{email}</strong> still has to be verified, a new mail is on its way.
    </p>
  )
}
