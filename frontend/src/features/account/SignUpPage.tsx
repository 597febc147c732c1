import { useState } from 'react'
import { Alert } from '~/components/Alert'
import { Button } from '~/components/Button'
import { EmailField, PasswordField, TextField } from '~/components/Field'
import { Link } from '~/components/Link'
import { Page } from '~/components/Page'
import { emailMistake, lengthMistake, lengthOf, useForm } from '~/lib/form'
import { type Registered, register } from './api'
import { ResendButton } from './ResendButton'

const MAX_NAME = 80
const MIN_PASSWORD = 12
const MAX_PASSWORD = 128

export function SignUpPage() {
  const [registered, setRegistered] = useState<Registered>()
  return registered === undefined ? (
    <SignUpForm onRegistered={setRegistered} />
  ) : (
    <CheckYourMail account={registered} />
  )
}

function CheckYourMail({ account: { email, mail } }: { account: Registered }) {
  return (
    <Page
      title="Check your mail"
      lead={
        mail === 'delayed' ? (
          <>
            Your account is made, but the mail to <strong>{email}</strong> is late. Please send it again in a minute.
          </>
        ) : (
          <>
            We sent a link to <strong>{email}</strong>. Open it within 24 hours to verify your address, then sign in.
          </>
        )
      }
    >
      <ResendButton email={email} />
      <p className="aside">
        No mail after a few minutes? Look into the spam folder. If you have verified the address already, you can{' '}
        <Link to="/signin" handover={{ email }}>
          sign in
        </Link>
        .
      </p>
    </Page>
  )
}

function SignUpForm({ onRegistered }: { onRegistered: (account: Registered) => void }) {
  const { values, failure, busy, formProps, field } = useForm({
    initial: { name: '', email: '', password: '' },
    check: ({ name, email, password }) => ({
      name: lengthMistake(name, MAX_NAME),
      email: emailMistake(email),
      password: passwordMistake(password),
    }),
    send: async ({ name, email, password }) => {
      onRegistered(await register({ name: name.trim(), email: email.trim(), password }))
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
  const length = lengthOf(password)
  if (length < MIN_PASSWORD) return `Choose a password of at least ${String(MIN_PASSWORD)} characters.`
  if (length > MAX_PASSWORD) return `Choose a password of at most ${String(MAX_PASSWORD)} characters.`
}
