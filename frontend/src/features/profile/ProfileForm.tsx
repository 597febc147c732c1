import { useEffect, useRef } from 'react'
import { Alert } from '~/components/Alert'
import { Button } from '~/components/Button'
import { TextArea, TextField } from '~/components/Field'
import { lengthMistake, useForm } from '~/lib/form'
import { useSession } from '~/lib/session'
import { changeProfile, type Profile } from './api'

const MAX_NAME = 80
const MAX_BIO = 500

interface ProfileFormProps {
  profile: Profile
  onSaved: (saved: Profile) => void
  onCancel: () => void
}

export function ProfileForm({ profile, onSaved, onCancel }: ProfileFormProps) {
  const session = useSession()
  const start = useRef<HTMLDivElement>(null)
  const { failure, busy, formProps, field } = useForm({
    initial: { name: profile.name, bio: profile.bio },
    check: ({ name, bio }) => ({ name: lengthMistake(name, MAX_NAME), bio: lengthMistake(bio, MAX_BIO) }),
    send: async ({ name, bio }) => {
      onSaved(await changeProfile(session, { name: name.trim(), bio: bio.trim() }))
    },
  })

  useEffect(() => {
    start.current?.querySelector('input')?.focus()
  }, [])

  return (
    <form {...formProps}>
      {failure !== null && <Alert error={failure} />}
      <div ref={start}>
        <TextField {...field('name')} label="Name" autoComplete="name" optional />
      </div>
      <TextArea {...field('bio')} label="About you" hint={`Up to ${String(MAX_BIO)} characters.`} optional />
      <p className="actions">
        <Button type="submit" busy={busy}>
          {busy ? 'Saving…' : 'Save changes'}
        </Button>
        <Button look="plain" onClick={onCancel}>
          Cancel
        </Button>
      </p>
    </form>
  )
}
