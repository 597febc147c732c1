import { type ReactNode, useState } from 'react'
import { Link } from '~/components/Link'
import { Logo } from '~/components/Logo'
import { Status } from '~/components/Status'
import { SignOutButton } from '~/features/account/SignOutButton'
import { env } from '~/lib/env'
import { usePlace } from '~/lib/router'
import { useSessionState } from '~/lib/session'

export function Layout({ children }: { children: ReactNode }) {
  const { handover, visit } = usePlace()
  const [failure, setFailure] = useState({ visit: 0, sentence: '' })
  const message = failure.sentence !== '' && failure.visit === visit ? failure.sentence : handover.message

  return (
    <div className="layout">
      <a className="skip" href="#content">
        Skip to the content
      </a>
      <header className="header">
        <Link className="brand" to="/">
          <Logo />
          Berth
        </Link>
        <Navigation
          onFailure={(sentence) => {
            setFailure({ visit, sentence })
          }}
        />
      </header>
      <main className="content" id="content" tabIndex={-1}>
        <Status>{message !== undefined && <p>{message}</p>}</Status>
        {children}
      </main>
      <div className="harbour" />
      <footer className="footer">
        <p>Berth, release {env.release}</p>
      </footer>
    </div>
  )
}

function Navigation({ onFailure }: { onFailure: (sentence: string) => void }) {
  const { status } = useSessionState()
  const { path } = usePlace()
  const current = (to: string) => (path === to ? 'page' : undefined)

  if (status === 'restoring') return null
  return (
    <nav className="navigation" aria-label="Account">
      {status === 'signed-in' ? (
        <>
          <Link to="/profile" aria-current={current('/profile')}>
            Profile
          </Link>
          <SignOutButton onFailure={onFailure} />
        </>
      ) : (
        <>
          <Link to="/signin" aria-current={current('/signin')}>
            Sign in
          </Link>
          <Link to="/signup" aria-current={current('/signup')}>
            Sign up
          </Link>
        </>
      )}
    </nav>
  )
}
