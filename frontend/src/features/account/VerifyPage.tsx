import { useState } from 'react'
import { Alert } from '~/components/Alert'
import { Button } from '~/components/Button'
import { EmailField, PasswordField } from '~/components/Field'
import { Link } from '~/components/Link'
import { Page } from '~/components/Page'
import { Status } from '~/components/Status'
import { emailMistake, useForm } from '~/lib/form'
import { ApiError } from '~/lib/http'
import { sentenceFor } from '~/lib/problems'
import { redirect, usePlace } from '~/lib/router'
import { useSession } from '~/lib/session'
import { sendVerificationMail, signIn, verify } from './api'
import { SentMessage } from './SentMessage'

export function VerifyPage() {
  const token = usePlace().token
  return token === null || token === '' ? (
    <ResendForm lead="Open the link in the mail we sent you, or let us send a new one." />
  ) : (
    <Verification key={token} token={token} />
  )
}

/** The link shows whose mailbox it is; the password, that the sign-up was the same person's. */
function Verification({ token }: { token: string }) {
  const session = useSession()
  const { failure, busy, formProps, field } = useForm({
    initial: { password: '' },
    check: ({ password }) => ({ password: password === '' ? 'Enter your password.' : undefined }),
    send: async ({ password }) => {
      const { email } = await verify(token, password)
      try {
        session.begin(await signIn({ email, password }))
        redirect('/profile', { message: 'Your email is verified.' })
      } catch {
        redirect('/signin', { message: 'Your email is verified. You can sign in now.', email })
      }
    },
    blame: ({ code }) =>
      code === 'credentials_invalid' ? { password: 'This is not the password of the sign-up that this mail is about.' } : {},
  })

  if (failure instanceof ApiError && failure.code === 'token_invalid') {
    return <ResendForm lead={`${sentenceFor(failure)} Let us send you a new one.`} />
  }
  return (
    <Page title="Verify your email" lead="Type the password that you chose when you signed up.">
      <form {...formProps}>
        {failure !== null && <Alert error={failure} />}
        <PasswordField {...field('password')} label="Password" autoComplete="current-password" />
        <Button type="submit" busy={busy}>
          {busy ? 'Verifying…' : 'Verify and sign in'}
        </Button>
      </form>
      <p className="aside">
        It was not you who signed up, or you do not know the password? <Link to="/signup">Sign up yourself</Link>, or{' '}
        <Link to="/forgotten">choose a new password</Link>.
      </p>
    </Page>
  )
}

function ResendForm({ lead }: { lead: string }) {
  const [sentTo, setSentTo] = useState<string>()
  const { failure, busy, formProps, field } = useForm({
    initial: { email: '' },
    check: ({ email }) => ({ email: emailMistake(email) }),
    send: async ({ email }) => {
      setSentTo(undefined)
      await sendVerificationMail(email.trim())
      setSentTo(email.trim())
    },
  })

  return (
    <Page title="Verify your email" lead={lead}>
      <form {...formProps}>
        <Status>{sentTo !== undefined && <SentMessage email={sentTo} />}</Status>
        {failure !== null && <Alert error={failure} />}
        <EmailField {...field('email')} autoComplete="email" />
        <Button type="submit" busy={busy}>
          {busy ? 'Sending…' : 'Send a new link'}
        </Button>
      </form>
    </Page>
  )
}
