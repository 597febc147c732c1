import { type SubmitEvent, useEffect, useRef, useState } from 'react'
import { ApiError } from './http'

type Errors<Values> = { [Name in keyof Values]?: string | undefined }

interface FormOptions<Values> {
  initial: Values
  /** What is wrong with the values, before anything is sent. */
  check: (values: Values) => Errors<Values>
  send: (values: Values) => Promise<void>
  /** Failures of `send` that belong to a field rather than to the whole form. */
  blame?: (error: ApiError) => Errors<Values>
}

/** A form keeps its values through every error, sends once however often it is submitted, and leads to the first mistake. */
export function useForm<Values extends Record<string, string>>(options: FormOptions<Values>) {
  const [values, setValues] = useState(options.initial)
  const [errors, setErrors] = useState<Errors<Values>>({})
  const [failure, setFailure] = useState<unknown>(null)
  const [refusals, setRefusals] = useState(0)
  const [busy, setBusy] = useState(false)
  const sending = useRef(false)
  const form = useRef<HTMLFormElement>(null)

  useEffect(() => {
    form.current?.querySelector<HTMLElement>('[aria-invalid="true"]')?.focus()
  }, [refusals])

  function refuse(mistakes: Errors<Values>) {
    setErrors(mistakes)
    setRefusals((count) => count + 1)
  }

  async function submit() {
    if (sending.current) return
    const mistakes = options.check(values)
    setErrors({})
    setFailure(null)
    if (Object.values(mistakes).some(Boolean)) {
      refuse(mistakes)
      return
    }
    sending.current = true
    setBusy(true)
    try {
      await options.send(values)
    } catch (error) {
      const blamed = error instanceof ApiError ? { ...known(error.fields), ...options.blame?.(error) } : {}
      if (Object.values(blamed).some(Boolean)) refuse(blamed)
      else setFailure(error)
    } finally {
      sending.current = false
      setBusy(false)
    }
  }

  function known(fields: Record<string, string>): Errors<Values> {
    return Object.fromEntries(Object.entries(fields).filter(([name]) => name in values)) as Errors<Values>
  }

  return {
    values,
    failure,
    busy,
    formProps: {
      ref: form,
      // The browser's own bubbles vanish and are not read out everywhere; the page shows its own messages.
      noValidate: true,
      onSubmit: (event: SubmitEvent<HTMLFormElement>) => {
        event.preventDefault()
        void submit()
      },
    },
    field: (name: keyof Values & string) => ({
      name,
      value: values[name] ?? '',
      error: errors[name],
      onChange: (value: string) => {
        setValues((before) => ({ ...before, [name]: value }))
        setErrors((before) => ({ ...before, [name]: undefined }))
      },
    }),
  }
}

/** Only what surely is no address; whether mail arrives there, the verification mail finds out. */
export function emailMistake(email: string): string | undefined {
  if (email.trim() === '') return 'Enter your email.'
  const address = /^[\w!#$%&'*+/=?^`{|}~-]+(\.[\w!#$%&'*+/=?^`{|}~-]+)*@[a-z0-9-]+(\.[a-z0-9-]+)+$/i
  return address.test(email.trim()) ? undefined : 'This is not an email address, such as ada@example.com.'
}

export function lengthMistake(text: string, most: number): string | undefined {
  const length = lengthOf(text.trim())
  return length > most ? `This is ${String(length)} characters long; at most ${String(most)} fit.` : undefined
}

/** Characters as the services count them: an emoji is one, not two. */
export function lengthOf(text: string): number {
  return Array.from(text).length
}
