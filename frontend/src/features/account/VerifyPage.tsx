import { useEffect, useState } from 'react'
import { Alert } from '~/components/Alert'
import { Button } from '~/components/Button'
import { EmailField } from '~/components/Field'
import { Link } from '~/components/Link'
import { Page } from '~/components/Page'
import { Status } from '~/components/Status'
import { emailMistake, useForm } from '~/lib/form'
import { ApiError } from '~/lib/http'
import { sentenceFor } from '~/lib/problems'
import { usePlace } from '~/lib/router'
import { useSessionState } from '~/lib/session'
import { sendVerificationMail, verifyOnce } from './api'
import { SentMessage } from './SentMessage'

export function VerifyPage() {
  const token = usePlace().token
  return token === null || token === '' ? (
    <ResendForm lead="Open the link in the mail we sent you, or let us send a new one." />
  ) : (
    <Verification key={token} token={token} />
  )
}

type Outcome = { verified: string } | { error: unknown } | null

function Verification({ token }: { token: string }) {
  const [outcome, setOutcome] = useState<Outcome>(null)
  const [attempt, setAttempt] = useState(1)

  useEffect(() => {
    let left = false
    verifyOnce(token).then(
      ({ email }) => {
        if (!left) setOutcome({ verified: email })
      },
      (error: unknown) => {
        if (!left) setOutcome({ error })
      },
    )
    return () => {
      left = true
    }
  }, [token, attempt])

  if (outcome === null) return <Page title="Verifying your email" lead="One moment…" />
  if ('verified' in outcome) return <Verified email={outcome.verified} />
  if (outcome.error instanceof ApiError && outcome.error.code === 'token_invalid') {
    return <ResendForm lead={`${sentenceFor(outcome.error)} Let us send you a new one.`} />
  }
  return (
    <Page title="Verify your email">
      <Alert error={outcome.error} />
      <Button
        onClick={() => {
          setOutcome(null)
          setAttempt(attempt + 1)
        }}
      >
        Try again
      </Button>
    </Page>
  )
}

function Verified({ email }: { email: string }) {
  const signedIn = useSessionState().status === 'signed-in'
  return (
    <Page
      title="Your email is verified"
      lead={
        <>
          <strong>{email}</strong> now belongs to your account.
        </>
      }
    >
      <p className="actions">
        {signedIn ? (
          <Link className="button button-primary" to="/profile">
            Open your profile
          </Link>
        ) : (
          <Link className="button button-primary" to="/signin" handover={{ email }}>
            Continue to sign in
          </Link>
        )}
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
