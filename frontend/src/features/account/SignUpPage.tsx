import { useState } from 'react'
import { Alert } from '~/components/Alert'
import { Button } from '~/components/Button'
import { EmailField, TextField } from '~/components/Field'
import { Link } from '~/components/Link'
import { Page } from '~/components/Page'
import { emailMistake, lengthMistake, useForm } from '~/lib/form'
import { type Registered, register } from './api'
import { newPasswordMistake } from './newPassword'
import { NewPasswordField } from './NewPasswordField'
import { ResendButton } from './ResendButton'

const MAX_NAME = 80

export function SignUpPage() {
  const [registered, setRegistered] = useState<Registered>()
  return registered === undefined ? (
    <SignUpForm onRegistered={setRegistered} />
  ) : (
    <CheckYourMail account={registered} />
  )
}

function CheckYourMail({ account: { email } }: { account: Registered }) {
  return (
    <Page
      title="Check your mail"
      lead={
        <>
          We sent a mail to <strong>{email}</strong>. Open its link within 24 hours and type your password once more.
        </>
      }
    >
      <ResendButton email={email} />
      <p className="aside">
        No mail after a few minutes? Look into the spam folder. If you have an account already, you can{' '}
        <Link to="/signin" handover={{ email }}>
          sign in
        </Link>{' '}
        or{' '}
        <Link to="/forgotten" handover={{ email }}>
          choose a new password
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
      password: newPasswordMistake(password),
    }),
    send: async ({ name, email, password }) => {
      onRegistered(await register({ name: name.trim(), email: email.trim(), password }))
    },
  })

  return (
    <Page title="Create your account" lead="It takes a minute and one mail.">
      <form {...formProps}>
        {failure !== null && <Alert error={failure} />}
        <TextField {...field('name')} label="Name" autoComplete="name" optional />
        <EmailField {...field('email')} autoComplete="username" />
        <NewPasswordField {...field('password')} label="Password" />
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
