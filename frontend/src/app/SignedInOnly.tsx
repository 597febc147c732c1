import { type ReactNode, useEffect } from 'react'
import { Alert } from '~/components/Alert'
import { Button } from '~/components/Button'
import { Page } from '~/components/Page'
import { redirect, usePlace } from '~/lib/router'
import { type Ending, useSession, useSessionState } from '~/lib/session'

const messages: Record<Ending, string> = {
  never: 'Please sign in to see this page.',
  expired: 'Your session has ended. Please sign in again.',
  'signed-out': 'You are signed out.',
  'signed-out-elsewhere': 'You signed out in another tab.',
}

export function SignedInOnly({ children }: { children: ReactNode }) {
  const session = useSession()
  const state = useSessionState()
  const { path } = usePlace()
  const ending = state.status === 'signed-out' ? state.ending : undefined

  useEffect(() => {
    if (ending !== undefined) redirect('/signin', { message: messages[ending], next: path })
  }, [ending, path])

  switch (state.status) {
    case 'signed-in':
      return children
    case 'signed-out':
      return null
    case 'restoring':
      return <p className="loading">One moment…</p>
    case 'unreachable':
      return (
        <Page title="We could not open this page">
          <Alert error={state.error} />
          <Button onClick={() => void session.restore()}>Try again</Button>
        </Page>
      )
  }
}
