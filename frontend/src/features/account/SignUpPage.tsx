import { useState } from 'react'
import { Alert } from '~/components/Alert'
import { Button } from '~/components/Button'
import { EmailField, PasswordField, TextField } from '~/components/Field'
import { Link } from '~/components/Link'
import { Page } from '~/components/Page'
import { emailMistake, useForm } from '~/lib/form'
import { register } from './api'
import { ResendButton } from './ResendButton'

const MIN_PASSWORD = 12
const MAX_PASSWORD = 128

export function SignUpPage() {
  const [registered, setRegistered] = useState<string>()
  return registered === undefined ? (
    <SignUpForm onRegistered={setRegistered} />
  ) : (
    <Page
      title="Check your mail"
      lead={
        <>
          We sent a link to <strong>{registered}</strong>. Open it within 24 hours to verify your address, then sign in.
        </>
      }
    >
      <ResendButton email={registered} />
      <p className="aside">
        No mail after a few minutes? Look into the spam folder, or{' '}
        <Link to="/signin" handover={{ email: registered }}>
          sign in
        </Link>{' '}
        if you have verified it already.
      </p>
    </Page>
  )
}

function SignUpForm({ onRegistered }: { onRegistered: (email: string) => void }) {
  const { values, failure, busy, formProps, field } = useForm({
    initial: { name: '', email: '', password: '' },
    check: ({ email, password }) => ({ email: emailMistake(email), password: passwordMistake(password) }),
    send: async ({ name, email, password }) => {
      const account = { email: email.trim(), password }
      await register(name.trim() === '' ? account : { ...account, name: name.trim() })
      onRegistered(account.email)
    },
    blame: ({ code }) =>
      code === 'email_taken' ? { email: 'There already is an account with this email. Sign in instead?' } : {},
  })

  return (
    <Page title="Create your account" lead="It takes a minute and one mail.">
      <form {...formProps}>
        {failure !== null && <Alert error={failure} />}
        <TextField {...field('name')} label="Name" autoComplete="name" optional />
        <EmailField {...field('email')} autoComplete="username" />
        <PasswordField
          {...field('password')}
          label="Password"
          hint={`At least ${String(MIN_PASSWORD)} characters. A few unrelated words make a good one.`}
          autoComplete="new-password"
          minLength={MIN_PASSWORD}
        />
        <Button type="submit" busy={busy}>
          {busy ? 'Creating account…' : 'Create account'}
        </Button>
      </form>
      <p className="aside">
        Already have an account?{' '}
        <Link to="/signin" handover={{ email: values.email }}>
          Sign in instead
        </Link>
      </p>
    </Page>
  )
}

function passwordMistake(password: string): string | undefined {
  const length = Array.from(password).length
  if (length < MIN_PASSWORD) return `Choose a password of at least ${String(MIN_PASSWORD)} characters.`
  if (length > MAX_PASSWORD) return `Choose a password of at most ${String(MAX_PASSWORD)} characters.`
}
