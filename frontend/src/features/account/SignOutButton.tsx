import { useState } from 'react'
import { Button } from '~/components/Button'
import { sentenceFor } from '~/lib/problems'
import { navigate } from '~/lib/router'
import { useSession } from '~/lib/session'
import { signOut } from './api'

/** Signing out is done when the server says so: until then the refresh cookie would still open the account. */
export function SignOutButton({ onFailure }: { onFailure: (sentence: string) => void }) {
  const session = useSession()
  const [busy, setBusy] = useState(false)

  async function leave() {
    setBusy(true)
    try {
      await signOut()
      session.end('signed-out')
      navigate('/signin', { message: 'You are signed out.' })
    } catch (error) {
      setBusy(false)
      onFailure(`You are still signed in. ${sentenceFor(error)}`)
    }
  }

  return (
    <Button look="plain" busy={busy} onClick={() => void leave()}>
      {busy ? 'Signing out…' : 'Sign out'}
    </Button>
  )
}
