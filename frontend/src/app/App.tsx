import { useEffect } from 'react'
import { type Session, SessionProvider } from '~/lib/session'
import { Layout } from './Layout'
import { Router } from './Router'

export function App({ session }: { session: Session }) {
  useEffect(() => {
    void session.restore()
    return session.followOtherTabs()
  }, [session])

  return (
    <SessionProvider value={session}>
      <Layout>
        <Router />
      </Layout>
    </SessionProvider>
  )
}
