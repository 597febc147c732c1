import { useEffect } from 'react'
import { Alert } from '~/components/Alert'
import { Button } from '~/components/Button'
import { EmailField, PasswordField } from '~/components/Field'
import { Link } from '~/components/Link'
import { Page } from '~/components/Page'
import { emailMistake, useForm } from '~/lib/form'
import { redirect, usePlace } from '~/lib/router'
import { useSession, useSessionState } from '~/lib/session'
import { signIn } from './api'

export function SignInPage() {
  const session = useSession()
  const { status } = useSessionState()
  const { email = '', next = '/profile' } = usePlace().handover
  const { values, failure, busy, formProps, field } = useForm({
    initial: { email, password: '' },
    check: (entered) => ({
      email: emailMistake(entered.email),
      password: entered.password === '' ? 'Enter your password.' : undefined,
    }),
    send: async (entered) => {
      session.begin(await signIn({ email: entered.email.trim(), password: entered.password }))
    },
    blame: ({ code }) =>
      code === 'credentials_invalid'
        ? {
            password:
              'The email or the password is not right. If you have just signed up, open the link in our mail first.',
          }
        : {},
  })

  useEffect(() => {
    if (status === 'signed-in') redirect(next)
  }, [status, next])

  return (
    <Page title="Sign in" lead="Good to see you again.">
      {failure !== null && <Alert error={failure} />}
      <form {...formProps}>
        <EmailField {...field('email')} autoComplete="username" />
        <PasswordField {...field('password')} label="Password" autoComplete="current-password" />
        <Button type="submit" busy={busy}>
          {busy ? 'Signing in…' : 'Sign in'}
        </Button>
      </form>
      <p className="aside">
        <Link to="/forgotten" handover={{ email: values.email.trim() }}>
          Forgotten your password?
        </Link>{' '}
        <Link to="/verify">No mail after signing up?</Link>
      </p>
      <p className="aside">
        New here? <Link to="/signup">Create an account</Link>
      </p>
    </Page>
  )
}
