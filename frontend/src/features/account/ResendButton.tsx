import { useState } from 'react'
import { Alert } from '~/components/Alert'
import { Button } from '~/components/Button'
import { Status } from '~/components/Status'
import { useForm } from '~/lib/form'
import { sendVerificationMail } from './api'
import { SentMessage } from './SentMessage'

/** Ask for the verification mail again, for an address that is already known. */
export function ResendButton({ email }: { email: string }) {
  const [sent, setSent] = useState(false)
  const { failure, busy, formProps } = useForm({
    initial: {},
    check: () => ({}),
    send: async () => {
      setSent(false)
      await sendVerificationMail(email)
      setSent(true)
    },
  })

  return (
    <form {...formProps}>
      <Status>{sent && <SentMessage email={email} />}</Status>
      {failure !== null && <Alert error={failure} />}
      <Button type="submit" look="plain" busy={busy}>
        {busy ? 'Sending…' : 'Send the mail again'}
      </Button>
    </form>
  )
}
