import { Link } from '~/components/Link'
import { Page } from '~/components/Page'
import { useSessionState } from '~/lib/session'

export function FrontPage() {
  const { status } = useSessionState()
  return (
    <Page
      title="A safe berth for your account"
      lead="One sign-in, one profile, both yours to change. Come alongside and make fast."
    >
      <p className="actions">
        {status === 'signed-in' ? (
          <Link className="button button-primary" to="/profile">
            Open your profile
          </Link>
        ) : (
          <>
            <Link className="button button-primary" to="/signup">
              Create an account
            </Link>
            <Link className="button button-plain" to="/signin">
              I have an account
            </Link>
          </>
        )}
      </p>
    </Page>
  )
}
