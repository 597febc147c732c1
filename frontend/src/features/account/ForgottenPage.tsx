import { useState } from 'react'
import { Alert } from '~/components/Alert'
import { Button } from '~/components/Button'
import { EmailField } from '~/components/Field'
import { Link } from '~/components/Link'
import { Page } from '~/components/Page'
import { Status } from '~/components/Status'
import { emailMistake, useForm } from '~/lib/form'
import { usePlace } from '~/lib/router'
import { sendResetMail } from './api'

export function ForgottenPage({ lead }: { lead?: string }) {
  const { email = '' } = usePlace().handover
  const [sentTo, setSentTo] = useState<string>()
  const { failure, busy, formProps, field } = useForm({
    initial: { email },
    check: (entered) => ({ email: emailMistake(entered.email) }),
    send: async (entered) => {
      setSentTo(undefined)
      await sendResetMail(entered.email.trim())
      setSentTo(entered.email.trim())
    },
  })

  return (
    <Page title="Choose a new password" lead={lead ?? 'We send a link to your address. It works for an hour.'}>
      <form {...formProps}>
        <Status>
          {sentTo !== undefined && (
            <p>
              If <strong>{sentTo}</strong> has an account, a mail is on its way. Look into the spam folder, too.
            </p>
          )}
        </Status>
        {failure !== null && <Alert error={failure} />}
        <EmailField {...field('email')} autoComplete="username" />
        <Button type="submit" busy={busy}>
          {busy ? 'Sending…' : 'Send the link'}
        </Button>
      </form>
      <p className="aside">
        You know it after all? <Link to="/signin">Sign in</Link>
      </p>
    </Page>
  )
}
